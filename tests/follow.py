"""Doing in a project what a page of it says, in order, as a reader would."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.service import BASH, run
from tests.template import ROOT, Answers

# What pages promise, as tests that are put into a project; the same in all variants.
PLANTED = ROOT / "tests" / "planted"
# The test of the page on features, which the page shows.
FEATURE = "tests/test_categories.py"
# What a page ends with.
CHECKS = {"pytest", "ruff check .", "ruff format --check .", "mypy"}

# Gives a project of some variant in which a recipe was followed, by its name.
Prepare = Callable[[Answers, str], Path]


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
