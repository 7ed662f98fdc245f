"""Each variant stands on its own: typed, and tested on both kinds of database."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.evidence import count_passed, note
from tests.postgres import Server
from tests.service import run
from tests.template import EXTREMES, Bakery, name_of

pytestmark = pytest.mark.slow


def test_mypy_finds_nothing(rendering: Path, mypy_cache: Path) -> None:
    run(rendering, sys.executable, "-m", "mypy", "--cache-dir", mypy_cache)


def test_its_own_tests_pass_on_both_databases(
    rendering: Path, server: Server, tmp_path: Path
) -> None:
    project = shutil.copytree(rendering, tmp_path / "project")
    command = (sys.executable, "-m", "pytest", "--verbose")
    output = run(project, *command, TEST_DATABASE_URL=server.url)
    note(own=count_passed(output))
    assert "[sqlite" in output
    assert "[postgresql" in output


@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_newer_pythons_run_it(version: str, bake: Bakery, tmp_path: Path) -> None:
    run(tmp_path, interpreter(version), "-m", "venv", "venv")
    python = tmp_path / "venv" / "bin" / "python"
    install = (python, "-m", "pip", "install", "--quiet")
    run(tmp_path, *install, "--upgrade", "pip")
    for answers in EXTREMES:
        folder = tmp_path / name_of(answers)
        project = shutil.copytree(bake(**answers, example=True), folder)
        run(project, *install, "--editable", ".", "--group", "dev")
        run(project, python, "-m", "pytest")


def interpreter(version: str) -> Path:
    """Return a Python of that version, or skip the test where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [*pyenv.glob(f"versions/{version}.*/bin/python")]
    if on_path := shutil.which(f"python{version}"):
        found.append(Path(on_path))
    if not found:
        pytest.skip(f"there is no Python {version} here")
    return found[0]
