"""Products: read-through. The cache loads values itself; the application only invalidates after a write."""
