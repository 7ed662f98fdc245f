"""A release has one number everywhere, and projects of the last one follow to it."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from tests import service
from tests.follow import CHECKS, FEATURE, follow
from tests.owner import CRUFT, Run, commit, copy_template
from tests.template import EXTREMES, ROOT, SLUG, VARIANTS, Answers, Bakery, name_of

CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
HEADING = re.compile(
    r"^## (\d+\.\d+\.\d+) \((unreleased|\d{4}-\d\d-\d\d)\)$", re.MULTILINE
)
HEADINGS = HEADING.findall(CHANGELOG)
# A heading of the changelog that has its date, as git looks for it.
DATED = r"^## [0-9.]+ \([0-9]{4}-"
# Each choice twice.
VARIED = [
    *EXTREMES,
    VARIANTS["async-sqlmodel-auto-unit_of_work"],
    VARIANTS["sync-sqlalchemy-manual-repository"],
]
# What a feature and its migration can break in a new version, and the other way round.
TOGETHER = (
    *("test_health.py", "test_migrations.py", "test_models.py", "test_problems.py"),
    *("session/test_dependencies.py", "session/test_layers.py"),
)


def last_release(run: Run) -> str:
    """Return the newest tag of a version, or else the commit that dated the newest.

    Clones may lack the tags, and shallow ones the history too: for those, it is the
    commit that they have.
    """
    tags = run(ROOT, "git", "tag", "--sort=-version:refname", "--merged=HEAD", "v*")
    dating = ("git", "log", "-1", "--format=%H", f"-G{DATED}", "--", "CHANGELOG.md")
    found = tags.split() or run(ROOT, *dating).split()
    assert found, "no version has been released"
    return found[0]


@pytest.fixture
def releases(run: Run, tmp_path: Path) -> Path:
    """The template in a git repository: its last release, and all that came since."""
    archive, folder = tmp_path / "release.tar", tmp_path / "releases.git"
    run(ROOT, "git", "archive", f"--output={archive}", last_release(run))
    shutil.unpack_archive(archive, folder, filter="data")
    commit(run, folder)
    run(folder, "git", "tag", "last")
    run(folder, "git", "rm", "--quiet", "-r", ".")
    copy_template(run, folder)
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--allow-empty", "--message=Since then")
    return folder


def rendered(run: Run, project: Path) -> dict[str, bytes]:
    """Return what git knows of a project, but for the state that cruft keeps."""
    names = run(project, "git", "ls-files", "-z").split("\0")
    return {
        name: (project / name).read_bytes()
        for name in names
        if name and name != ".cruft.json"
    }


def test_the_version_is_the_newest_of_the_changelog() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert pyproject["project"]["version"] == HEADINGS[0][0]
    assert len(HEADINGS) == CHANGELOG.count("\n## ")
    dates = [date for _, date in HEADINGS]
    assert "unreleased" not in dates[1:]
    assert dates == sorted(dates, reverse=True)  # a word comes after all numbers


def test_the_readme_checks_out_the_last_release() -> None:
    released = next(version for version, date in HEADINGS if date != "unreleased")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {*re.findall(r"--checkout v([\d.]+)", readme)} == {released}


@pytest.mark.slow
@pytest.mark.costly
@pytest.mark.parametrize("variant", VARIED, ids=name_of)
def test_a_project_of_the_last_release_follows_with_its_own_feature(
    variant: Answers, run: Run, releases: Path, bake: Bakery, tmp_path: Path
) -> None:
    wishes = ("--extra-context", json.dumps(variant))
    create = (*CRUFT, "create", "--no-input", "--checkout", "last", *wishes)
    run(tmp_path, *create, releases.as_uri())
    project = tmp_path / SLUG
    commit(run, project)
    before = rendered(run, project)
    follow("docs/add-a-feature.md", project, omitting=CHECKS, PATH=service.PROGRAMS)
    commit(run, project)
    owned = rendered(run, project)
    own = {name for name in owned if owned[name] != before.get(name)}

    run(project, *CRUFT, "update", "-y")

    commit(run, project)
    after = rendered(run, project)
    new = bake(**variant, example=True)
    for name in own - before.keys():
        assert after[name] == owned[name], f"{name} is the owner's"
    for name in after.keys() - own:
        assert after[name] == (new / name).read_bytes(), name
    tests = [FEATURE, *(f"tests/{name}" for name in TOGETHER)]
    service.run(project, sys.executable, "-m", "pytest", *tests)
