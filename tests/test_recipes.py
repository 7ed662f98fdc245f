"""Owners follow recipes: what a page promises holds in a project of each variant."""

from __future__ import annotations

import re
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tests.follow import CHECKS, PLANTED, Prepare
from tests.postgres import Server
from tests.service import BASH, run
from tests.template import EXTREMES, ROOT, Answers, render_page

pytestmark = [pytest.mark.slow, pytest.mark.costly]

PAGES = ROOT / "docs" / "recipes"
RECIPES = sorted(page.stem for page in PAGES.glob("*.md"))
# The one that is attacked as well; to follow the others too would take minutes.
COMMON = {"idempotency-key"}
FOLLOWED = [
    pytest.param(recipe, marks=[] if recipe in COMMON else [pytest.mark.rare])
    for recipe in RECIPES
]
# Lines of a page: a screen of text, and no more code than a feature has.
MOST_TEXT = 50
MOST_CODE = 230
# The project's own tests that a recipe could break.
OTHERS = " ".join(
    [
        "tests/session/test_layers.py",
        "tests/test_models.py",
        "tests/test_migrations.py::test_a_row_of_each_table_can_be_stored_and_read",
        "tests/test_migrations.py::test_the_models_are_what_the_migrations_make",
        "tests/test_migrations.py::test_columns_are_as_long_as_the_models_say",
        "tests/test_migrations.py::test_checks_are_those_of_the_models",
        "tests/test_migrations.py::test_up_down_and_up_again",
    ]
)


@pytest.mark.parametrize("recipe", FOLLOWED)
def test_a_recipe_does_what_it_says(
    recipe: str,
    variant: Answers,
    prepare: Prepare,
    server: Server,
    tools: dict[str, Any],
) -> None:
    project = prepare(variant, recipe)
    name = recipe.replace("-", "_")
    test = f"tests/test_{name}.py"
    (planted,) = (PLANTED / "recipes").glob(f"{name}.py*")
    text = render_page(planted, variant).lstrip()
    (project / test).write_text(text, encoding="utf-8")
    settings = {"PYTEST_ADDOPTS": f"{test} {OTHERS}", **tools}
    if variant in EXTREMES:
        settings["TEST_DATABASE_URL"] = server.url
    run(project, *BASH, "\n".join(sorted(CHECKS)), **settings)


def test_each_page_begins_with_its_title(variant: Answers) -> None:
    for recipe in RECIPES:
        page = render_page(PAGES / f"{recipe}.md", variant)
        assert page.strip().startswith("# "), recipe


def test_each_page_is_short(variant: Answers) -> None:
    for recipe in RECIPES:
        page = render_page(PAGES / f"{recipe}.md", variant)
        blocks = [each for each in MarkdownIt().parse(page) if each.type == "fence"]
        code = [line for each in blocks for line in each.content.splitlines()]
        text = re.sub(r"^```.*?^```$", "", page, flags=re.M | re.S)
        assert len(code) <= MOST_CODE, recipe
        assert sum(bool(line) for line in text.splitlines()) <= MOST_TEXT, recipe
