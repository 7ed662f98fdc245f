"""A project comes out the same by every way in, and lives on with its template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.owner import COOKIECUTTER, CRUFT, Run, commit
from tests.template import ROOT, SLUG, Bakery, files_in, settings_in

pytestmark = pytest.mark.slow

ANSWERS = {"io": "sync", "commit": "manual", "example": "no"}
AS_BAKED = ANSWERS | {"example": False}
FLIPS = {
    "io": "sync",
    "orm": "sqlmodel",
    "commit": "manual",
    "pattern": "unit_of_work",
    "example": False,
}


@pytest.fixture
def project(run: Run, template: Path, tmp_path: Path) -> Path:
    """A living project: made by cruft, edited, and committed by its owner."""
    run(tmp_path, *CRUFT, "create", "--no-input", template.as_uri())
    edit_as_owner(tmp_path / SLUG)
    commit(run, tmp_path / SLUG)
    return tmp_path / SLUG


def edit_as_owner(project: Path) -> None:
    """Add a file, and a line to files of the template."""
    (project / "app" / "ours.py").write_text("OURS = True\n")
    for name in (".gitignore", "pyproject.toml"):
        with (project / name).open("a") as file:
            file.write("\n# ours\n")


def content_of(project: Path) -> dict[str, bytes]:
    """Return what is in a project but for git's files and cruft's."""
    return {
        name: content
        for name, content in files_in(project).items()
        if not name.startswith((".git/", ".cruft.json"))
    }


def given(answers: dict[str, str]) -> list[str]:
    """Return answers as the command line takes them."""
    return [f"{prompt}={answer}" for prompt, answer in answers.items()]


def test_a_git_url_gives_the_same_project(
    run: Run, template: Path, tmp_path: Path, bake: Bakery
) -> None:
    run(tmp_path, *COOKIECUTTER, "--no-input", template.as_uri(), *given(ANSWERS))
    assert files_in(tmp_path / SLUG) == files_in(bake(**AS_BAKED))


def test_a_replay_gives_the_same_project(
    run: Run, tmp_path: Path, bake: Bakery
) -> None:
    run(tmp_path, *COOKIECUTTER, "--no-input", ROOT, *given(ANSWERS))
    run(tmp_path, *COOKIECUTTER, "--replay", "--output-dir", "again", ROOT)
    assert files_in(tmp_path / "again" / SLUG) == files_in(bake(**AS_BAKED))


def test_a_configuration_file_gives_the_same_project(
    run: Run, tmp_path: Path, bake: Bakery
) -> None:
    config = settings_in(tmp_path)
    with config.open("a") as file:
        file.write(f"default_context: {json.dumps(ANSWERS)}\n")
    run(tmp_path, *COOKIECUTTER, "--no-input", "--config-file", config, ROOT)
    assert files_in(tmp_path / SLUG) == files_in(bake(**AS_BAKED))


def test_cruft_gives_the_same_project(
    run: Run, template: Path, tmp_path: Path, bake: Bakery
) -> None:
    wishes = ("--extra-context", json.dumps(ANSWERS))
    run(tmp_path, *CRUFT, "create", "--no-input", *wishes, template.as_uri())
    assert content_of(tmp_path / SLUG) == files_in(bake(**AS_BAKED))


@pytest.mark.parametrize("prompt", FLIPS)
def test_cruft_flips_a_switch_in_a_living_project(
    prompt: str, run: Run, project: Path, tmp_path: Path, bake: Bakery
) -> None:
    wish = {prompt: FLIPS[prompt]}
    run(project, *CRUFT, "update", "-y", "--variables-to-update", json.dumps(wish))

    fresh = tmp_path / "fresh"
    shutil.copytree(bake(**wish), fresh)
    edit_as_owner(fresh)
    assert content_of(project) == content_of(fresh)


def test_cruft_brings_a_change_of_the_template_to_a_living_project(
    run: Run, template: Path, project: Path
) -> None:
    (template / "{{cookiecutter.project_slug}}" / "NEWS.md").write_text(
        "News of {{ cookiecutter.project_slug }}.\n"
    )
    commit(run, template)
    before = content_of(project)

    run(project, *CRUFT, "update", "-y")

    assert content_of(project) == before | {"NEWS.md": f"News of {SLUG}.\n".encode()}
    run(project, *CRUFT, "check")
