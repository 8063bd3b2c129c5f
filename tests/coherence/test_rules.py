"""Leaves out each rule of `docs/identity.md` once, in a copy of the code: a test must fail.

The model goes further (`tests/coherence/epochs/`): it leaves rules out of its model of the code, and explores every
order of steps. Here, the code itself lacks them.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.coherence.rules import RULES, Rule

ROOT = Path(__file__).parents[2]
COPIED = ("app", "tests", "migrations", "alembic.ini", "pyproject.toml")


@pytest.mark.prove
@pytest.mark.timeout(300)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_without_this_rule_a_test_fails(rule: Rule, tmp_path: Path) -> None:
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    source = tmp_path / rule.path
    code = source.read_text()
    assert code.count(rule.lines) == 1, (
        f"{rule.path} has not exactly one {rule.lines!r}: which lines keep the rule now?"
    )
    source.write_text(code.replace(rule.lines, rule.instead))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--no-header",
        "-p",
        "no:cacheprovider",
        f"tests/coherence/{rule.test}",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    print(ran.stdout, ran.stderr)
    assert ran.returncode == pytest.ExitCode.TESTS_FAILED, "Nothing has found it."
    assert re.search(r"^FAILED ", ran.stdout, re.MULTILINE), "Something else is wrong."
