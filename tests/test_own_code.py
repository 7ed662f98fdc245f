"""The template's own code keeps the rules that it sets for rendered projects."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.template import ROOT


@pytest.mark.parametrize(
    "command",
    [
        "ruff check",
        "ruff format --check",
        pytest.param("mypy", marks=pytest.mark.slow),
    ],
)
def test_our_own_code_is_clean(command: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert ended.returncode == 0, ended.stdout
