"""The triggers that make a table's rows cacheable: each change gets a version and an outbox row, whoever writes.

    set_version        numbers each change, including a DELETE
    record_change      writes the outbox row in the same transaction; one for each key when the key itself changes
    refuse_truncate    refuses TRUNCATE, which would leave no trace

What can go wrong: writes under `session_replication_role = replica` or with disabled triggers leave no trace. Old
migrations call `cacheable`, so its result for a table must never change: new behaviour needs a new function.
"""


def cacheable(table: str, key: str) -> list[str]:
    """Returns the statements that create the triggers on a table with the columns `key`, `version` (bigint) and
    `updated_at`."""
    return [
        f"CREATE TRIGGER set_version BEFORE INSERT OR UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION set_version()",
        f"CREATE TRIGGER record_change AFTER INSERT OR UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION record_change('{key}')",
        f"CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate()",
    ]
