"""The command that tries variants tells those that pass from those that do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.template import ROOT

VARIANT = "sync-sqlalchemy-auto-repository"


def tried(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Return how the command has ended; it renders below the folder."""
    return subprocess.run(
        [sys.executable, "-m", "tests.try", *arguments],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        encoding="utf-8",
    )


def results(output: str) -> list[tuple[str, str]]:
    """Return the result and the name of each command that has been run."""
    lines = [line for line in output.splitlines() if line[:6] in {"passed", "FAILED"}]
    return [(line[:6], line.partition(" s  ")[2].partition(":")[0]) for line in lines]


def test_an_unknown_variant_is_refused_with_the_names_that_there_are(
    tmp_path: Path,
) -> None:
    ended = tried(tmp_path, "sync-sqlalchemy")
    assert ended.returncode == 2
    assert "'sync-sqlalchemy'" in ended.stderr
    assert f"\n{VARIANT}\n" in ended.stderr
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("expression", "result", "code"),
    [("live", "passed", 0), ("no_test_is_called_that", "FAILED", 1)],
)
def test_each_command_has_its_line_and_the_exit_code_says_whether_all_passed(
    expression: str, result: str, code: int, tmp_path: Path
) -> None:
    ended = tried(tmp_path, VARIANT, "--bare", "-k", expression)
    assert results(ended.stdout) == [
        ("passed", "ruff format"),
        ("passed", "ruff check"),
        ("passed", "mypy"),
        (result, "pytest"),
    ]
    assert ended.returncode == code
    project = Path(ended.stdout.splitlines()[0].removeprefix(f"{VARIANT}: "))
    assert (project / "app" / "main.py").is_file()
    assert not (project / "app" / "products").exists()
