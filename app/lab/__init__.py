"""The lab: your traffic, through every strategy, on a real Redis and a real Postgres, with the bill."""
