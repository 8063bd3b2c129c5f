"""Users: cache-aside. The application asks the cache and the database itself, and invalidates after a write."""
