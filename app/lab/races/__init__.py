"""Tries the interleavings of a small case, on a real Redis and a real Postgres, until one goes wrong."""
