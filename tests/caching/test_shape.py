"""The code is readable: a strategy fits on one screen, no file is long, and a long script has a diagram."""

from pathlib import Path

import pytest

from tests.service import REPOSITORY

LIBRARY = REPOSITORY / "app" / "caching"
STRATEGIES = ("cache_aside.py", "read_through.py", "write_through.py", "write_behind/write_behind.py")
SCRIPTS = sorted(LIBRARY.rglob("*.lua"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_fits_on_one_screen(strategy: str) -> None:
    assert len((LIBRARY / strategy).read_text().splitlines()) <= 80


def test_no_file_of_the_application_is_long() -> None:
    files = {path: len(path.read_text().splitlines()) for path in (REPOSITORY / "app").rglob("*.py")}
    assert not {str(path): lines for path, lines in files.items() if lines > 250}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_of_more_than_twenty_lines_begins_with_a_diagram(script: Path) -> None:
    lines = script.read_text().splitlines()
    code = [line for line in lines if line.strip() and not line.strip().startswith("--")]
    head = lines[: lines.index(code[0])]
    assert len(code) <= 20 or any("►" in line for line in head)
