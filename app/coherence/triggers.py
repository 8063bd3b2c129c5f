"""What makes a table's rows cacheable: a version for each change, and a row in the outbox that no write gets past.

    set_version        numbers each change, a DELETE too
    record_change      writes the outbox row, in the same transaction; when the key itself changes, one for each key
    refuse_truncate    refuses what would leave no trace

What can go wrong: `session_replication_role = replica` and disabled triggers leave no trace. Migrations of the past use
this function, so what it answers for a table must stay as it is: a new way needs a new function.
"""


def cacheable(table: str, key: str) -> list[str]:
    """The statements that put the triggers on a table with the columns `key`, `version` (bigint) and `updated_at`."""
    return [
        f"CREATE TRIGGER set_version BEFORE INSERT OR UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION set_version()",
        f"CREATE TRIGGER record_change AFTER INSERT OR UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION record_change('{key}')",
        f"CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate()",
    ]
