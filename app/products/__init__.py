"""Products: read-through. The cache loads itself; the application only invalidates after a write."""
