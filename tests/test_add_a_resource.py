"""Follows the page on adding a resource literally, on a copy of the project."""

import asyncio
import os
import re
import shutil
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

from tests.service import REPOSITORY

PAGE = (REPOSITORY / "docs" / "add-a-resource.md").read_text()
STEP = re.compile(r"<!-- (file|change): (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
COPIED = ("app", "migrations", "tests", "docs", "alembic.ini", "pyproject.toml", "README.md")
MOST_LINES = 12
"""Lines added or changed outside the resource's own files."""


def changed(text: str, change: str) -> tuple[str, int]:
    """Returns a file after a change, and how many of its lines are new. Each kept or removed line occurs once."""
    at, new = 0, 0
    lines = text.splitlines()
    for line in change.splitlines():
        sign, content = line[:1], line[1:]
        if sign == "+":
            lines.insert(at, content)
            at, new = at + 1, new + 1
        else:
            assert lines.count(content) == 1, content
            at = lines.index(content)
            if sign == "-":
                del lines[at]
            else:
                at += 1
    return "\n".join(lines) + "\n", new


async def test_a_fifth_resource_added_by_the_page_is_coherent(tmp_path: Path) -> None:
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    new_files, new_lines = 0, 0
    for kind, name, content in STEP.findall(PAGE):
        file = tmp_path / name
        if kind == "file":
            assert not file.exists()
            file.parent.mkdir(exist_ok=True)
            file.write_text(content)
            new_files += 1
        else:
            text, new = changed(file.read_text(), content)
            file.write_text(text)
            new_lines += new
    assert (new_files, new_lines) == (7, MOST_LINES)
    checks = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0",
        "tests/coherence/test_every_resource.py", "tests/test_migrations.py",
        "-k", "orders or models or further or triggers",
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, stdout=PIPE, stderr=STDOUT,
    )  # fmt: skip
    said = (await checks.communicate())[0].decode()
    print(said)
    assert checks.returncode == 0, said
    assert re.search(r"\b(8|14) passed", said), "Half of them need PgBouncer."
