"""The CI of a rendered project passes: its steps, in order, in a fresh environment."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import Server
from tests.service import PROGRAMS, run
from tests.template import DEFAULT, VARIANTS, Answers, Bakery, name_of
from tests.test_files import WORKFLOW, data_of

pytestmark = [pytest.mark.slow, pytest.mark.costly]

# tests/test_project.py has run the others; what CI adds is seen without them.
ON_SQLITE = "-k 'not postgresql'"


@pytest.fixture
def clone(variant: Answers, bake: Bakery, tmp_path: Path) -> Path:
    """What a forge checks out: a project of which nothing is installed yet."""
    return shutil.copytree(bake(**variant, example=True), tmp_path / "clone")


@pytest.fixture
def given(server: Server) -> dict[str, str]:
    """What takes the place of the PostgreSQL that a forge starts."""
    return {"DATABASE_URL": server.create_database(), "TEST_DATABASE_URL": server.url}


@pytest.mark.parametrize("variant", [DEFAULT], ids=name_of)
def test_the_steps_of_github_pass(
    clone: Path, given: dict[str, str], tmp_path: Path
) -> None:
    job: dict[str, Any] = data_of(clone / WORKFLOW)["jobs"]["test"]
    _, setup, *steps = job["steps"]
    assert setup["uses"].startswith("astral-sh/setup-uv@")
    assert job["env"].keys() == given.keys()
    uv = shutil.which("uv", path=PROGRAMS)
    assert uv
    for name, program in {"uv": uv, "python3": sys.executable}.items():
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(program)} "$@"\n')
        script.chmod(0o700)
    path = os.pathsep.join([str(tmp_path), os.defpath])
    settings = {"PATH": path, "CI": "true", "PYTEST_ADDOPTS": ON_SQLITE, **given}
    for step in steps:
        run(clone, "bash", "-ec", step["run"], **settings)


# The same after its first lines, as tests/test_files.py knows: only with all variants.
@pytest.mark.parametrize(
    "variant", [VARIANTS["sync-sqlalchemy-manual-unit_of_work"]], ids=name_of
)
def test_the_script_of_gitlab_passes(
    clone: Path, given: dict[str, str], tmp_path: Path
) -> None:
    job: dict[str, Any] = data_of(clone / ".gitlab-ci.yml")["test"]
    assert job["image"] == "python:$PYTHON-slim"
    run(tmp_path, sys.executable, "-m", "venv", "image")
    path = os.pathsep.join([str(tmp_path / "image" / "bin"), os.defpath])
    settings = {**job["variables"], **given}
    script = "\n".join([*job["before_script"], *job["script"]])
    run(clone, "bash", "-eo", "pipefail", "-c", script, PATH=path, **settings)
