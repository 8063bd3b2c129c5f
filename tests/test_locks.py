"""The lock files: each installs exactly what it names, from wherever the reader gets packages."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.service import REPOSITORY

LOCKS = sorted((REPOSITORY / "locks").glob("*.txt"))
PINNED = re.compile(r"[a-z0-9-]+==\S+(?: ; [^\\]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+")


@pytest.mark.parametrize("lock", LOCKS, ids=[lock.name for lock in LOCKS])
def test_each_lock_has_only_versions_and_hashes(lock: Path) -> None:
    """No comment, no option and no URL: none could name an index or a host."""
    text = lock.read_text()
    assert PINNED.search(text)
    assert PINNED.sub("", text).strip() == ""


def test_make_writes_each_lock_and_each_tool_has_one_of_its_own() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    extras, groups = (re.search(rf"for {name} in ([a-z ]+);", makefile) for name in ("extra", "group"))
    assert extras is not None
    assert groups is not None
    assert {f"{name}.txt" for name in [*extras[1].split(), *groups[1].split()]} == {lock.name for lock in LOCKS}
    tools = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["dependency-groups"]
    assert set(tools) == set(groups[1].split())
    for name, (tool,) in tools.items():
        assert re.search(rf"^{tool}==", (REPOSITORY / f"locks/{name}.txt").read_text(), re.MULTILINE)
