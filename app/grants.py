"""What the service needs in its stores, table by table and command by command, and nothing else.

    fourways grants postgres --role app     the GRANTs for a role that owns nothing (`postgres_grants`)
    fourways grants redis --user app        the ACL SETUSER for a user that has only its own keys (`redis_grants`)
    fourways grants apply                   makes the role, and executes its GRANTs (`service_role.py`)

The migrations run as another role, the owner. What only an owner may do at run time (a partition of the ledger is made
each hour, and dropped a day later) is in functions that run with its rights.

What can go wrong: a version needs something that an older one did not. So run both again after each upgrade.
`tests/test_grants.py` checks that nothing is missing, and that each part is needed.
"""

from collections.abc import Mapping

TABLES: Mapping[str, str] = {
    "alembic_version": "SELECT",
    "applied": "SELECT, INSERT",
    "dead_letters": "SELECT, INSERT, DELETE",
    "deployment": "SELECT",
    "epochs": "SELECT, INSERT, UPDATE",
    "ledger_floor": "SELECT",
    "ledger_hours": "SELECT",
    "outbox": "SELECT, INSERT, UPDATE, DELETE",
    "page_views": "SELECT, INSERT, UPDATE",
    "parked_views": "SELECT, INSERT, UPDATE, DELETE",  # UPDATE to lock its rows.
    "products": "SELECT, INSERT, UPDATE, DELETE",
    "set_aside": "SELECT, INSERT",
    "stock": "SELECT, INSERT, UPDATE, DELETE",
    "stock_adjustments": "SELECT, INSERT",
    "users": "SELECT, INSERT, UPDATE, DELETE",
}
"""The privileges on each table. A partition needs none: it is reached through its table."""

SEQUENCES: Mapping[str, str] = {"row_version": "SELECT"}
"""To read which number the trigger has just drawn; the trigger draws it with its owner's rights."""

FUNCTIONS = (
    "drop_ledger_hour(timestamptz)",
    "finish_ledger_detach(timestamptz)",
    "load_stock(text)",
    "open_ledger_hour(timestamptz)",
    "salvage_views(text[], bigint[])",
    "stock_lock(text)",
)
"""The functions that statements call."""

COMMANDS = (
    "client|setname",  # Where REDIS_URL has a client_name.
    "decrby",
    "del",
    "eval",
    "evalsha",
    "get",
    "hdel",
    "hget",
    "hgetall",
    "hmget",
    "hset",
    "incrby",
    "info",
    "mget",
    "pexpire",
    "pttl",
    "script|load",
    "select",  # Where REDIS_URL names a database.
    "set",
    "time",
    "type",
    "xack",
    "xadd",
    "xautoclaim",
    "xclaim",
    "xdel",
    "xgroup|create",
    "xgroup|delconsumer",
    "xinfo|consumers",
    "xlen",
    "xpending",
    "xrange",
    "xreadgroup",
)
"""The commands of the service and of its scripts. CONFIG GET is not among them: it shows passwords. Without it, it is
unknown how often Redis syncs its file, and each pending view counts as at risk."""

KEYS = ("epoch", "products:{*", "run", "stock:{*", "users:{*", "views:trial", "views:{*")
"""The names in Redis, as patterns, without the prefix."""

IN_A_CLUSTER = ("asking", "cluster|info", "cluster|nodes", "cluster|slots"), ("epoch:{*",)
"""The commands and the names that are needed besides, where REDIS_URL names a cluster."""


def postgres_grants(role: str) -> str:
    """Returns the SQL that permits `role` what the service needs, for psql as the owner of the tables."""
    return f"BEGIN;\n{postgres_statements(role)}\nCOMMIT;"


def postgres_statements(role: str) -> str:
    """Returns the same, for a transaction of the caller's."""
    name = quoted(role)
    # GRANT takes no expression, and where the tables are is known only there.
    where = "\n".join(
        f"  EXECUTE format('GRANT {some} ON {kind} %I TO %I', {current}, {literal(role)});"
        for some, kind, current in (
            ("CONNECT", "DATABASE", "current_database()"),
            ("USAGE", "SCHEMA", "current_schema()"),
        )
    )
    lines = [
        f"DO {literal(f'BEGIN{chr(10)}{where}{chr(10)}END')};",
        *(f"GRANT {some} ON TABLE {table} TO {name};" for table, some in TABLES.items()),
        *(f"GRANT {some} ON SEQUENCE {sequence} TO {name};" for sequence, some in SEQUENCES.items()),
        *(f"GRANT EXECUTE ON FUNCTION {function} TO {name};" for function in FUNCTIONS),
    ]
    return "\n".join(lines)


def redis_grants(user: str, prefix: str) -> str:
    """Returns the command that permits `user` what the service needs under `prefix`, and takes away all else. A
    password stays as it is, and a new user has none: nobody can log in as this user."""
    commands, keys = sorted((*COMMANDS, *IN_A_CLUSTER[0])), sorted((*KEYS, *IN_A_CLUSTER[1]))
    patterns, permitted = (f"~{prefix}{key}" for key in keys), (f"+{command}" for command in commands)
    return " ".join(["ACL SETUSER", user, "on resetkeys resetchannels -@all", *patterns, *permitted])


def quoted(role: str) -> str:
    """Returns the name of a role in SQL."""
    return '"' + role.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Returns a string in SQL."""
    return "'" + text.replace("'", "''") + "'"
