"""The pages are true: they speak of all that the template asks and renders."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.template import (
    DEFAULT,
    EXTREMES,
    PROMPTS,
    ROOT,
    SLUG,
    SWITCHES,
    Bakery,
    files_in,
)

PAGE = ROOT / "docs" / "options.md"
TEXT = PAGE.read_text(encoding="utf-8")
TEAMS = "Which answers for which team"
ASKED = {prompt: PROMPTS[prompt] for prompt in PROMPTS if not prompt.startswith("_")}
# As they are typed on the command line.
CHOICES: dict[str, dict[str, Any]] = {
    prompt: {str(choice).lower(): choice for choice in choices}
    for prompt, choices in (SWITCHES | {"example": [True, False]}).items()
}
ANSWERS = {f"{prompt}={choice}" for prompt in CHOICES for choice in CHOICES[prompt]}
ANSWER = re.compile(r"`([a-z_]+=\w+)`")

each_choice = pytest.mark.parametrize(
    ("prompt", "choice"), sorted(tuple(answer.split("=")) for answer in ANSWERS)
)


def sections() -> dict[tuple[str, str], str]:
    """Return what the page says of each prompt, and of each of its choices."""
    prompt = choice = ""
    said: dict[tuple[str, str], str] = {}
    for line in TEXT.splitlines():
        if line.startswith("## "):
            prompt, choice = line.removeprefix("## ").strip("`"), ""
        elif line.startswith("### "):
            choice = line.removeprefix("### ").removesuffix(" (default)").strip("`")
        else:
            said[prompt, choice] = said.get((prompt, choice), "") + f"{line}\n"
    return said


SECTIONS = sections()


def packages_of(project: Path) -> set[str]:
    """Return what a project depends on, with extras and without versions."""
    pyproject = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    needed: list[str] = pyproject["project"]["dependencies"]
    return {re.split("[<>=]", each)[0] for each in needed}


def test_each_prompt_and_each_choice_has_its_heading_in_their_order() -> None:
    expected = []
    for prompt, answer in ASKED.items():
        default = answer[0] if isinstance(answer, list) else answer
        expected.append(f"## `{prompt}`")
        for choice, value in CHOICES.get(prompt, {}).items():
            expected.append(f"### `{choice}`" + " (default)" * (value == default))
    assert re.findall(r"^##+ `.+$", TEXT, re.MULTILINE) == expected


def test_each_text_has_its_default() -> None:
    for prompt in ASKED.keys() - CHOICES.keys():
        default = SLUG if prompt == "project_slug" else ASKED[prompt]
        assert f"`{default}`" in SECTIONS[prompt, ""], prompt


def test_each_answer_is_recommended_to_somebody() -> None:
    assert ANSWERS - {*ANSWER.findall(SECTIONS[TEAMS, ""])} == set()


def test_no_answer_is_named_that_does_not_exist() -> None:
    assert {*ANSWER.findall(TEXT)} - ANSWERS == set()


@each_choice
def test_each_choice_has_two_sides_and_somebody_to_take_it(
    prompt: str, choice: str
) -> None:
    for beginning in ("Packages: ", "Good: ", "Costs: ", "Take it "):
        assert f"\n* {beginning}" in SECTIONS[prompt, choice], beginning


@each_choice
def test_each_choice_names_the_packages_that_only_it_brings(
    prompt: str, choice: str, bake: Bakery
) -> None:
    packages = {
        each: packages_of(bake(**DEFAULT | {"example": True, prompt: value}))
        for each, value in CHOICES[prompt].items()
    }
    ours = packages.pop(choice)
    named = re.search(r"^\* Packages: (.+?)\.\s", SECTIONS[prompt, choice], re.M)
    assert named
    assert {*re.findall("`(.+?)`", named[1])} == ours.difference(*packages.values())


def test_the_files_that_are_named_exist(bake: Bakery) -> None:
    rendered = "".join(
        f"/{name}\n"
        for answers in EXTREMES
        for example in (True, False)
        for name in files_in(bake(**answers, example=example))
    )
    named = {*re.findall(r"`([\w./-]+(?:/|\.(?:md|py|toml)))`", TEXT)}
    assert "app/transaction.py" in named
    assert [name for name in sorted(named) if f"/{name}" not in rendered] == []


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert target.startswith("https://") or (PAGE.parent / target).is_file(), target


def test_the_page_of_commits_is_what_is_rendered(bake: Bakery) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "build.py"))
    page: str = script["page"](bake)
    assert page == script["PAGE"].read_text(encoding="utf-8"), "run docs/build.py"


def test_the_tests_that_the_rules_name_exist(bake: Bakery) -> None:
    text = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    ours = {
        path.relative_to(ROOT / "tests").as_posix()
        for path in ROOT.glob("tests/**/*.py")
    }
    theirs = {
        name.removeprefix("tests/")
        for answers in EXTREMES
        for name in files_in(bake(**answers, example=True))
    }
    for row in re.findall(r"^\| S\d+ \|.+$", text, re.M):
        *_, project, template, _ = row.split("|")
        assert {*re.findall("`(.+?)`", project)} - theirs == set(), row
        assert {*re.findall("`(.+?)`", template)} - ours == set(), row
    session = {name for name in theirs if name.startswith("session/test_")}
    attacks = {name for name in ours if name.startswith("attacks/test_")}
    assert [name for name in sorted(session | attacks) if name not in text] == []
