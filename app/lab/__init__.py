"""The lab: plays your traffic through every strategy, on a real Redis and a real Postgres, and presents the bill."""
