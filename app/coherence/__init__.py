"""Keeps the caches consistent with the database, whoever writes to it: the outbox of changes, the relay that delivers
them, and the epochs that say which Redis belongs to which database."""
