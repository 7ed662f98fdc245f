"""The template renders, and refuses, the same under the newer Pythons."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.service import run
from tests.template import (
    DEFAULT,
    OPPOSITE,
    ROOT,
    SLUG,
    Answers,
    Bakery,
    environment,
    files_in,
    name_of,
)
from tests.test_project import interpreter

pytestmark = pytest.mark.slow

VARIANTS: list[Answers] = [
    {**DEFAULT, "example": True},
    {**OPPOSITE, "example": True},
    {**DEFAULT, "example": False},
]


@pytest.fixture(scope="module", params=["3.12", "3.13", "3.14"])
def newer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A newer Python that has a cookiecutter of its own."""
    folder = tmp_path_factory.mktemp("newer")
    # Our own pip installs into it: giving it one would take longer than all the rest.
    run(folder, interpreter(request.param), "-m", "venv", "--without-pip", "venv")
    python = folder / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(folder, *pip, "install", "--quiet", "cookiecutter")
    return python


def render_with(
    python: str | Path, folder: Path, **answers: object
) -> subprocess.CompletedProcess[str]:
    """Return how cookiecutter's command has ended under a Python."""
    return subprocess.run(
        [
            *(python, "-m", "cookiecutter", "--no-input", "--accept-hooks", "yes"),
            *("--output-dir", folder, ROOT),
            *(f"{prompt}={answer}" for prompt, answer in answers.items()),
        ],
        env=environment(folder),
        capture_output=True,
        encoding="utf-8",
    )


def test_newer_pythons_render_the_same(
    newer: Path, bake: Bakery, tmp_path: Path
) -> None:
    for answers in VARIANTS:
        folder = tmp_path / f"{name_of(answers)}-{answers['example']}"
        folder.mkdir()
        ended = render_with(newer, folder, **answers)
        assert ended.returncode == 0, ended.stderr
        assert files_in(folder / SLUG) == files_in(bake(**answers))


def test_newer_pythons_refuse_the_same(newer: Path, tmp_path: Path) -> None:
    ours, theirs = (
        render_with(python, tmp_path, project_slug="app")
        for python in (sys.executable, newer)
    )
    assert theirs.returncode == ours.returncode == 1
    assert theirs.stderr == ours.stderr
    assert theirs.stderr.startswith("project_slug cannot be 'app': ")
    assert theirs.stderr.count("\n") == 1
    assert not (tmp_path / "app").exists()
