"""What keeps the caches true to the database, whoever wrote: the outbox of changes, and the relay that carries it."""
