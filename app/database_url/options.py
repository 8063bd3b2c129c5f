"""Server settings in the parameter `options`, as in `-c search_path=shop --work_mem=8MB`.

They may not change what the application decides: its limits, and what its statements rely on.

What can go wrong: `ValueError`, a sentence that names the setting.
"""

import re

from app.database_url.parameter import Parameter

DECIDED = {
    "application_name": "write application_name=… in its place",
    "client_encoding": "asyncpg speaks UTF8",
    "default_transaction_isolation": "the statements rely on read committed",
    "idle_in_transaction_session_timeout": "FOURWAYS_DATABASE_TIMEOUT decides it",
    "lock_timeout": "FOURWAYS_DATABASE_TIMEOUT decides it",
    "statement_timeout": "FOURWAYS_DATABASE_TIMEOUT decides it",
    "timezone": "all times are in UTC",
}
"""The settings that a URL may not change, and why."""
NAME = re.compile(r"[a-z_][a-z0-9_.$]*")


def read_options(options: Parameter) -> dict[str, str]:
    """Returns the settings that Postgres is to begin a session with. Raises ValueError."""
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|\S)+", options.value)]
    settings: dict[str, str] = {}
    while words:
        word = words.pop(0)
        if word == "-c" and words:
            assignment = words.pop(0)
        elif word.startswith(("-c", "--")):
            assignment = word[2:]
        else:
            raise options.refused("it may have settings only, as in -c search_path=shop", shown=False)
        name, equals, value = assignment.partition("=")
        name = name.lower().replace("-", "_")
        if not equals or not NAME.fullmatch(name):
            raise options.refused("it may have settings only, as in -c search_path=shop", shown=False)
        if name in DECIDED:
            raise options.refused(f"it may not set {name}: {DECIDED[name]}", shown=False)
        settings[name] = value
    return settings
