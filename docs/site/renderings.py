"""Renders the template for all answers at once, with cookiecutter's own environment.

Cookiecutter compiles and writes each file for each set of answers. Here a file is
compiled once, rendered for all, and kept in memory: a second instead of a minute.
tests/test_site.py compares the result with what cookiecutter itself renders.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config
from cookiecutter.utils import create_env_with_context
from jinja2 import Environment, FileSystemLoader

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCE = ROOT / "{{cookiecutter.project_slug}}"
PROMPTS: dict[str, Any] = json.loads(
    (ROOT / "cookiecutter.json").read_text(encoding="utf-8")
)
# The questions with two choices, default first. A set of answers is a number: each
# switch is one of its bits, the first switch the highest.
SWITCHES: dict[str, list[str]] = {
    name: answer for name, answer in PROMPTS.items() if isinstance(answer, list)
} | {"example": ["true", "false"]}
ANSWERS: list[dict[str, str]] = [
    dict(zip(SWITCHES, choices, strict=True))
    for choices in itertools.product(*SWITCHES.values())
]
EVERYWHERE = (1 << len(ANSWERS)) - 1

# The questions that take free text.
TEXTS = [
    name
    for name, answer in PROMPTS.items()
    if isinstance(answer, str) and not name.startswith("_")
]
# Whatever depends on nothing but a free text; a rendering has a character of Unicode's
# private use area in its place, which no filter of the template changes.
_OF_A_TEXT = re.compile(rf"\{{\{{ cookiecutter\.({'|'.join(TEXTS)})\b.*\}}\}}", re.S)
DERIVED: dict[str, str] = {
    name: match[1]
    for name, answer in PROMPTS.items()
    if name.startswith("__")
    and isinstance(answer, str)
    and (match := _OF_A_TEXT.fullmatch(answer))
}
PLACEHOLDERS: dict[str, str] = {
    name: chr(0xE000 + number) for number, name in enumerate([*TEXTS, *DERIVED])
}


def contexts(texts: Mapping[str, str] = PLACEHOLDERS) -> list[dict[str, Any]]:
    """Return what cookiecutter would render each set of answers with."""
    found = []
    for answers in ANSWERS:
        extra = answers | {"example": answers["example"] == "true"}
        context = generate_context(
            str(ROOT / "cookiecutter.json"), extra_context=dict(extra)
        )
        context["cookiecutter"] = prompt_for_config(context, no_input=True)
        context["cookiecutter"] |= texts
        found.append(context)
    return found


def environment() -> Environment:
    """Return the environment in which cookiecutter renders the template."""
    context = {"cookiecutter": PROMPTS}
    found: Environment = create_env_with_context(context)
    found.loader = FileSystemLoader([SOURCE, ROOT / "templates", ROOT / "docs"])
    return found


def render_all() -> list[dict[str, str]]:
    """Return the files of each set of answers, by their names."""
    jinja, answers = environment(), contexts()
    projects: list[dict[str, str]] = [{} for _ in answers]
    for path in sorted(SOURCE.rglob("*")):
        if not path.is_file():
            continue
        source = path.relative_to(SOURCE).as_posix()
        name, content = jinja.from_string(source), jinja.get_template(source)
        for project, context in zip(projects, answers, strict=True):
            rendered = name.render(**context)
            # A condition in a name that does not hold leaves the folder.
            if not rendered.endswith("/"):
                project[rendered] = content.render(**context)
    return projects


def escapes_of(name: str) -> dict[str, str]:
    """Return what a derived variable has in place of each ASCII character it changes.

    Raises `ValueError` if the variable does more than to replace characters.
    """
    jinja = environment()
    template = jinja.from_string(PROMPTS[name])
    ascii_text = "".join(map(chr, range(32, 127)))

    def derive(text: str) -> str:
        return template.render(cookiecutter={DERIVED[name]: text})

    table = {each: derive(each) for each in ascii_text}
    if derive(ascii_text * 2) != "".join(table.values()) * 2:
        raise ValueError(f"{name} is more than an escape of characters")
    return {each: to for each, to in table.items() if each != to}
