"""The site's pages render for every variant, and say what its project says."""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config
from cookiecutter.utils import create_env_with_context
from jinja2 import FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.template import (
    EXTREMES,
    PROMPTS,
    ROOT,
    VARIANTS,
    Answers,
    Bakery,
    files_in,
    name_of,
)

PAGES = sorted((ROOT / "docs" / "pages").glob("*.md"))
MARKDOWN = MarkdownIt("commonmark").enable("table")
# Where a page quotes the project's own messages, one on each line of its blocks.
TROUBLESHOOTING = "troubleshooting.md"
OURS = "## Messages of the project"
# What features tell clients, and what their scripts log, is theirs to say.
FEATURES = ("app/orders/", "app/products/", "app/scripts/", "app/users/")
# Clients get these as the reason why a value does not fit its schema.
OF_SCHEMAS = "app/schemas.py"
LOGGED = {"debug", "info", "warning", "error", "exception"}
# Messages that are raised or logged through a variable.
HANDED_ON = ("FAILED", "ENDED", "EMPTY", "BEHIND", "AWAY", "REFUSES")

each_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
each_extreme = pytest.mark.parametrize("variant", EXTREMES, ids=map(name_of, EXTREMES))
each_example = pytest.mark.parametrize("example", [True, False], ids=["shop", "bare"])


@cache
def rendered(variant: str, example: bool) -> dict[str, str]:
    """Return the pages of a variant by their names."""
    answers = VARIANTS[variant] | {"example": example}
    context = generate_context(str(ROOT / "cookiecutter.json"), extra_context=answers)
    context["cookiecutter"] = prompt_for_config(context, no_input=True)
    environment = create_env_with_context({"cookiecutter": PROMPTS})
    environment.loader = FileSystemLoader([ROOT / "templates", ROOT / "docs" / "pages"])
    environment.undefined = StrictUndefined
    templates = {page.name: environment.get_template(page.name) for page in PAGES}
    return {name: each.render(context) for name, each in templates.items()}


def pages_of(variant: Answers, example: bool = True) -> dict[str, str]:
    """Return the pages of a variant by their names."""
    return rendered(name_of(variant), example)


def fences(text: str, language: str) -> list[str]:
    """Return the blocks of code of a language."""
    tokens = MARKDOWN.parse(text)
    return [
        token.content
        for token in tokens
        if token.type == "fence" and token.info.split(" ")[0] == language
    ]


def inlines(text: str) -> Iterator[Token]:
    """Return each link and each piece of text or code outside of blocks."""
    for token in MARKDOWN.parse(text):
        yield from token.children or []


def anchors(text: str) -> set[str]:
    """Return the anchors that forges give to the headings of a page."""
    tokens = MARKDOWN.parse(text)
    titles = [
        "".join(each.content for each in after.children or [])
        for token, after in pairwise(tokens)
        if token.type == "heading_open"
    ]
    kept = [re.sub(r"[^\w\- ]", "", title.strip().lower()) for title in titles]
    return {each.replace(" ", "-") for each in kept}


def pattern_of(text: ast.expr | None) -> str | None:
    """Return what a text in the source looks like when it is filled, None if none."""
    if isinstance(text, ast.Constant) and isinstance(text.value, str):
        return re.sub(r"%(\\\.\d)?[a-z]", ".+", re.escape(text.value))
    if isinstance(text, ast.JoinedStr):
        parts = [
            re.escape(str(each.value)) if isinstance(each, ast.Constant) else ".+"
            for each in text.values
        ]
        return "".join(parts)
    return None


def names_in(tree: ast.AST) -> dict[str, str]:
    """Return the texts that have a name, as patterns."""
    return {
        target.id: pattern
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and (pattern := pattern_of(node.value))
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def says_something(pattern: str) -> bool:
    """Whether there is a word in a message; many lines are route, problem, cause."""
    return re.search("[A-Za-z]{4}", pattern) is not None


def texts_in(project: Path) -> set[str]:
    """Return the patterns of all texts in a project's app."""
    return {
        pattern
        for path in project.glob("app/**/*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.expr) and (pattern := pattern_of(node))
        if says_something(pattern)
    }


def messages_in(project: Path) -> dict[str, str]:
    """Return the patterns of what a project raises and logs, with where it does."""
    found: dict[str, str] = {}
    for path in project.glob("app/**/*.py"):
        name = path.relative_to(project).as_posix()
        if name.startswith((*FEATURES, OF_SCHEMAS)):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = names_in(tree)
        patterns = [names.get(each) for each in HANDED_ON]
        for node in ast.walk(tree):
            match node:
                case ast.Raise(exc=ast.Call(args=[message, *_])):
                    patterns.append(pattern_of(message))
                    if isinstance(message, ast.Name):
                        patterns.append(names.get(message.id))
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="logger"), attr=method),
                    args=[message, *_],
                ) if method in LOGGED:
                    patterns.append(pattern_of(message))
        found |= {each: name for each in patterns if each and says_something(each)}
    return found


def quoted(pages: dict[str, str]) -> list[str]:
    """Return the project's own messages, as the page quotes them."""
    _, _, ours = pages[TROUBLESHOOTING].partition(f"\n{OURS}\n")
    assert ours
    return [line for block in fences(ours, "text") for line in block.splitlines()]


def fits(pattern: str, line: str) -> bool:
    """Whether a line is the message, behind what says where it comes from."""
    begins = r"Wrong settings\. (?:[A-Z_]+: )?"
    # Readiness adds the cause.
    looks = rf"(?:{begins})?(?:{pattern})|not ready: (?:{pattern})(?: .+)?"
    return re.fullmatch(looks, line) is not None


@each_example
@each_variant
def test_pages_render_without_leftovers(variant: Answers, example: bool) -> None:
    for name, text in pages_of(variant, example).items():
        assert text.startswith("# "), name
        assert re.findall(r"\{[{%#]|[%}]\}|cookiecutter\.", text) == [], name


@each_variant
def test_the_python_of_the_pages_compiles(variant: Answers) -> None:
    for example in (True, False):
        for name, text in pages_of(variant, example).items():
            for code in fences(text, "python"):
                compile(code, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                assert variant["io"] == "async" or "await " not in code, name


@each_example
@each_extreme
def test_the_links_lead_somewhere(
    variant: Answers, example: bool, bake: Bakery
) -> None:
    project = bake(**variant, example=example)
    pages = pages_of(variant, example)
    for name, text in pages.items():
        targets = [str(each.attrs["href"]) for each in inlines(text) if each.attrs]
        for target in targets:
            if target.startswith("https://"):
                continue
            path, _, anchor = target.partition("#")
            beside = posixpath.normpath(posixpath.join("docs/pages", path))
            if not path:
                there = text
            elif path in pages:
                there = pages[path]
            elif path.startswith("project/"):
                file = project / path.removeprefix("project/")
                assert file.is_file(), f"{name}: {target}"
                there = file.read_text(encoding="utf-8")
            else:
                assert (ROOT / beside).is_file(), f"{name}: {target}"
                there = (ROOT / beside).read_text(encoding="utf-8")
            assert not anchor or anchor in anchors(there), f"{name}: {target}"


@each_extreme
def test_the_files_and_settings_that_are_named_exist(
    variant: Answers, bake: Bakery
) -> None:
    project = bake(**variant, example=True)
    settings = (project / "docs" / "settings.md").read_text(encoding="utf-8")
    here = {*files_in(project)}
    folders = {posixpath.dirname(name) for name in here}
    for name, text in pages_of(variant).items():
        spans = [each for each in inlines(text) if each.type == "code_inline"]
        codes = {each.content for each in spans}
        for code in codes:
            if re.fullmatch(r"(app|tests|migrations|docs)/[\w/.]+", code):
                assert code in here or code.rstrip("/") in folders, f"{name}: {code}"
            elif re.fullmatch(r"test_\w+\.py", code):
                assert f"tests/session/{code}" in here, f"{name}: {code}"
            elif match := re.match(r"((?:DATABASE|TOKEN)_[A-Z_]+)\b", code):
                assert f"`{match[1]}`" in settings, f"{name}: {code}"


@each_extreme
def test_the_first_feature_is_the_one_of_the_projects_page(
    variant: Answers, bake: Bakery
) -> None:
    for example in (True, False):
        page = bake(**variant, example=example) / "docs" / "add-a-feature.md"
        text = page.read_text(encoding="utf-8")
        blocks = fences(pages_of(variant, example)["getting-started.md"], "python")
        assert blocks
        for code in blocks:
            assert code.strip() in text, code


@each_extreme
def test_each_message_that_is_quoted_is_the_projects(
    variant: Answers, bake: Bakery
) -> None:
    patterns = texts_in(bake(**variant, example=True))
    strange = [
        line
        for line in quoted(pages_of(variant))
        if not any(fits(pattern, line) for pattern in patterns)
    ]
    assert strange == []


@each_example
@each_extreme
def test_each_message_of_the_project_is_quoted(
    variant: Answers, example: bool, bake: Bakery
) -> None:
    lines = quoted(pages_of(variant, example))
    missing = {
        pattern: name
        for pattern, name in messages_in(bake(**variant, example=example)).items()
        if not any(fits(pattern, line) for line in lines)
    }
    assert missing == {}


@each_example
@each_extreme
def test_each_class_of_errors_is_on_the_page(
    variant: Answers, example: bool, bake: Bakery
) -> None:
    text = pages_of(variant, example)[TROUBLESHOOTING]
    project = bake(**variant, example=example)
    classes = {
        node.name
        for path in sorted(project.glob("app/**/*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    }
    assert "LazyLoadError" in classes
    assert [each for each in sorted(classes) if f"`{each}`" not in text] == []
