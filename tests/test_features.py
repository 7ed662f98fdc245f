"""An owner adds a feature, or takes the example out, as the project's pages say."""

from __future__ import annotations

import re
import shutil
from collections.abc import Set
from pathlib import Path
from typing import Any

import pytest

from tests.follow import CHECKS, FEATURE, PLANTED, follow
from tests.service import BASH, run
from tests.template import (
    DEFAULT,
    EXTREMES,
    OPPOSITE,
    Answers,
    Bakery,
    difference,
    files_in,
)

pytestmark = pytest.mark.slow

# Where all of a project's tests run, rather than those that a feature can break.
WHOLE = (
    {**DEFAULT, "example": True},
    {**OPPOSITE, "example": False},
)
# What other pages promise of the feature that the first one adds.
PROMISED = {
    "category_sessions.py": "tests/test_category_sessions.py",
    "reviews.py": "tests/test_reviews.py",
}
# What the page on users promises, which only a project without users has.
ASKING = "docs/who-is-asking.md"
ASKED = "tests/test_who_is_asking.py"
CHANGED = "tests/test_changing.py"
CHANGEABLE = "tests/test_migrations.py tests/session/test_dependencies.py"
# What takes its time of what a page ends with.
SLOW_CHECKS = {"pytest", "mypy"}
# What only the example says, in any case of its letters.
SHOP = (
    *("shop", "app.users", "app/users", "app/products", "userdep"),
    *("argon2", "jwt", "multipart", "secret_key", "token_lifetime"),
)


def test_a_feature_is_added_as_the_pages_say(
    answers: Answers, rendering: Path, tools: dict[str, Any], tmp_path: Path
) -> None:
    project = shutil.copytree(rendering, tmp_path / "project")
    checks = follow("docs/add-a-feature.md", project, omitting=CHECKS, **tools)
    assert {*checks} == CHECKS
    for page in sorted((project / "docs" / "sessions").iterdir()):
        follow(f"docs/sessions/{page.name}", project, **tools)
    follow("docs/relationships.md", project, **tools)
    promised = dict(PROMISED)
    if not answers["example"]:
        follow(ASKING, project, **tools)
        promised |= {"who_is_asking.py": ASKED}
    for planted, test in promised.items():
        shutil.copy(PLANTED / planted, project / test)
    some = " ".join([FEATURE, *promised.values(), CHANGEABLE])
    chosen = "" if answers in WHOLE else some
    run(project, *BASH, "\n".join(checks), PYTEST_ADDOPTS=chosen, **tools)


@pytest.mark.costly
def test_what_is_given_is_changed_as_the_page_says(
    rendering: Path, tools: dict[str, Any], tmp_path: Path
) -> None:
    project = shutil.copytree(rendering, tmp_path / "project")
    checks = follow("docs/add-a-feature.md", project, omitting=CHECKS, **tools)
    follow("docs/changing.md", project, **tools)
    shutil.copy(PLANTED / "changing.py", project / CHANGED)
    # The page says which of the project's own tests have to be changed with it.
    chosen = f"{CHANGED} tests/test_settings.py -k 'changing or in_the_docs'"
    run(project, *BASH, "\n".join(checks), PYTEST_ADDOPTS=chosen, **tools)


def test_the_example_is_taken_out_as_the_page_says(
    variant: Answers, bake: Bakery, tools: dict[str, Any], tmp_path: Path
) -> None:
    project = shutil.copytree(bake(**variant, example=True), tmp_path / "project")
    # Below, the others turn out to be projects that are tested as they are rendered.
    whole = variant in EXTREMES
    omitting: Set[str] = set() if whole else SLOW_CHECKS
    tools = tools | {"PYTEST_ADDOPTS": "-p no:cacheprovider"}
    checks = follow("docs/remove-the-shop.md", project, omitting, **tools)
    assert {*checks} == CHECKS

    found = files_in(project)
    without = files_in(bake(**variant, example=False))
    del without[ASKING]  # the shop had users
    for files, migration in ((found, r".+_first\.py"), (without, r"0001_first\.py")):
        (made,) = [name for name in files if re.match("migrations/versions/", name)]
        assert re.fullmatch(f"migrations/versions/{migration}", made)
        del files[made]
    assert found.keys() == without.keys(), difference({*found}, {*without})
    changed = {name for name in found if found[name] != without[name]}
    assert changed <= {"README.md"}
    left = [
        (name, word)
        for name, content in found.items()
        for word in SHOP
        if word in content.decode().lower()
    ]
    assert left == []
