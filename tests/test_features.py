"""An owner adds a feature, or takes the example out, as the project's pages say."""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.service import run
from tests.template import (
    DEFAULT,
    EXTREMES,
    OPPOSITE,
    ROOT,
    Answers,
    Bakery,
    difference,
    files_in,
)

pytestmark = pytest.mark.slow

BASH = ("bash", "-euo", "pipefail", "-c")
PROGRAMS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
# Where all of a project's tests run, rather than those that a feature can break.
WHOLE = (
    {**DEFAULT, "example": True},
    {**OPPOSITE, "example": False},
)
FEATURE = "tests/test_categories.py"
# What other pages promise of that feature; the same in all variants.
PLANTED = ROOT / "tests" / "planted"
PROMISED = {
    "category_sessions.py": "tests/test_category_sessions.py",
    "reviews.py": "tests/test_reviews.py",
}
# What the page on users promises, which only a project without users has.
ASKING = "docs/who-is-asking.md"
ASKED = "tests/test_who_is_asking.py"
CHANGED = "tests/test_changing.py"
CHANGEABLE = "tests/test_migrations.py tests/session/test_dependencies.py"
# What a page ends with, and what of it takes its time.
CHECKS = {"pytest", "ruff check .", "ruff format --check .", "mypy"}
SLOW_CHECKS = {"pytest", "mypy"}
# What only the example says, in any case of its letters.
SHOP = (
    *("shop", "app.users", "app/users", "app/products", "userdep"),
    *("argon2", "jwt", "multipart", "secret_key", "token_lifetime"),
)


@pytest.fixture(scope="session")
def tools(mypy_cache: Path) -> dict[str, Any]:
    """The settings with which a page's commands find their programs, and no cache.

    Only mypy keeps what it learns of the libraries, from one variant to the next.
    """
    return {"PATH": PROGRAMS, "MYPY_CACHE_DIR": mypy_cache, "RUFF_NO_CACHE": "true"}


def among_the_imports(lines: list[str], new: str) -> int:
    imports = [n for n, line in enumerate(lines) if line.startswith("from app")]
    return next((n for n in imports if lines[n] > new), imports[-1] + 1)


def at_the_end_of_init(lines: list[str], _: str) -> int:
    nodes = ast.walk(ast.parse("".join(lines)))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    (end,) = [each.end_lineno for each in functions if each.name == "__init__"]
    assert end is not None
    return end


def after_the_routers(lines: list[str], _: str) -> int:
    like = "app.include_router("
    return max(n for n, line in enumerate(lines) if line.strip().startswith(like)) + 1


# Where a block of code goes that is no whole file, as its mark says.
PLACES: dict[str, Callable[[list[str], str], int]] = {
    "imports": among_the_imports,
    "end of __init__": at_the_end_of_init,
    "routers": after_the_routers,
}


def insert(new: str, path: Path, place: str) -> None:
    """Put lines into a file, at a place among PLACES."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines.insert(PLACES[place](lines, new), new)
    path.write_text("".join(lines), encoding="utf-8")


def patch(diff: str, path: Path) -> None:
    """Change the one place of a file that a diff shows."""
    lines = [line or " " for line in diff.splitlines()]
    old, new = (
        "".join(f"{line[1:]}\n" for line in lines if line[0] in signs)
        for signs in (" -", " +")
    )
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new), encoding="utf-8")


def include(module: Path, main: Path) -> None:
    """Put a module's router beside the others."""
    name = module.parent.name if module.stem == "router" else module.stem
    origin = ".".join(module.relative_to(main.parent.parent).with_suffix("").parts)
    new = f"from {origin} import router as {name}\n"
    insert(new, main, "imports")
    insert(f"    app.include_router({name})\n", main, "routers")


def delete(words: list[str], path: Path) -> None:
    """Delete the lines of a file that have one of the words; each has to be found."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    assert [word for word in words if not any(word in line for line in lines)] == []
    kept = [line for line in lines if not any(word in line for word in words)]
    path.write_text("".join(kept), encoding="utf-8")


def follow(
    page: str, project: Path, omitting: Set[str] = frozenset(), **settings: Any
) -> list[str]:
    """Do in a project what a page of it says, in order; return its last commands.

    A block of code has marks, which no forge shows: `title` is its file, `insert` is
    where in the file its lines go, `router` is the module that includes its router.
    A block of the language `diff` changes its file.
    After the comment `delete-lines` comes a list of files, each with its words.
    """
    text = (project / page).read_text(encoding="utf-8")
    deleting = False
    commands: list[str] = []
    for token in MarkdownIt().parse(text):
        marks = dict(re.findall(r'(\w+)="([^"]*)"', token.info))
        for name in {"title", "router"} & marks.keys():
            assert f"`{marks[name]}`" in text, f"{page} does not name {marks[name]}"
        if token.type == "html_block":
            deleting |= token.content == "<!-- delete-lines -->\n"
        elif token.type == "bullet_list_close":
            deleting = False
        elif token.type == "inline" and deleting:
            file, *words = code_in(token)
            delete(words, project / file)
        elif token.type != "fence":
            continue
        elif token.info == "sh":
            commands = token.content.splitlines()
            asked_for = [each for each in commands if each not in omitting]
            run(project, *BASH, "\n".join(asked_for), **settings)
        elif "insert" in marks:
            insert(token.content, project / marks["title"], marks["insert"])
        elif token.info.startswith("diff "):
            patch(token.content, project / marks["title"])
        else:
            path = project / marks["title"]
            assert not path.exists(), path
            path.parent.mkdir(exist_ok=True)
            path.write_text(token.content, encoding="utf-8")
            if "router" in marks:
                include(path, project / marks["router"])
    assert not deleting
    return commands


def code_in(paragraph: Token) -> list[str]:
    """Return what a paragraph has between backticks."""
    spans = paragraph.children or []
    return [each.content for each in spans if each.type == "code_inline"]


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
