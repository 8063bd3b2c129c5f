"""Users: cache-aside. The application queries cache and database itself, and invalidates after a write."""
