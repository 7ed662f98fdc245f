"""Each way in that the README names gives the same project, by the command it shows."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.owner import Run, publish
from tests.service import BASH, PROGRAMS, Service
from tests.template import DEFAULT, PROMPTS, ROOT, SLUG, Bakery, files_in

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
CACHES = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
# Somebody who takes each default.
ENTER = "\n" * len(PROMPTS)
MINUTES = 600.0  # At most that many seconds, most of them uv's.


def commands_of_the_table() -> dict[str, str]:
    """Return the README's commands by what each of them is with."""
    _, table = README.split("\n| with | command |\n|---|---|\n")
    rows, _ = table.split("\n\n", maxsplit=1)
    return dict(re.findall(r"^\| (.+) \| `(.+)` \|$", rows, re.MULTILINE))


def first_commands() -> list[str]:
    """Return the two commands that the README begins with."""
    (commands,) = re.findall(r"\A.+?^```sh\n(.+?)^```$", README, re.M | re.S)
    return str(commands).splitlines()


@pytest.fixture
def stranger(run: Run, template: Path, tmp_path: Path) -> Run:
    """Somebody to whom the address stands for the template as it lies here."""
    for version in {*re.findall(r"--checkout (v\S+)\b", README)}:
        run(template, "git", "tag", version)
    publish(run, template, tmp_path / "forge")
    run.variables["PATH"] = PROGRAMS
    run.variables["XDG_CACHE_HOME"] = CACHES  # of pip and uv, at another home
    return run


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Where the stranger stands."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def service(stranger: Run, here: Path) -> Iterator[Service]:
    """The project, made and served by the two commands that the README begins with."""
    render, serve = first_commands()
    stranger(here, *BASH, render, typed=ENTER)
    with Service(here, *BASH, serve, patience=MINUTES, PATH=PROGRAMS) as service:
        yield service


@pytest.mark.parametrize("way", commands_of_the_table())
def test_the_commands_of_the_table_give_the_same_project(
    way: str, stranger: Run, template: Path, here: Path, bake: Bakery
) -> None:
    if way == "pip":
        stranger(here.parent, sys.executable, "-m", "venv", "fresh")
        fresh = here.parent / "fresh" / "bin"
        stranger.variables["PATH"] = os.pathsep.join([str(fresh), os.defpath])
    if way == "a zip file":  # as forges make them
        archive = ("--prefix=template-main/", f"--output={here / 'template.zip'}")
        stranger(template, "git", "archive", *archive, "HEAD")

    stranger(here, *BASH, commands_of_the_table()[way], typed=ENTER)

    found = files_in(here / SLUG)
    found.pop(".cruft.json", None)
    assert found == files_in(bake(**DEFAULT, example=True))


def test_two_commands_lead_to_a_served_request(service: Service) -> None:
    assert service.client().get("/docs").status_code == 200
    assert service.client().get("/products").json()["items"] == []
