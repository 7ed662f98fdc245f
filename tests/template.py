"""The template as its tests see it: its prompts, its variants, and its renderings."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from cookiecutter.generate import generate_context
from cookiecutter.main import cookiecutter
from cookiecutter.prompt import prompt_for_config
from cookiecutter.utils import create_env_with_context
from jinja2 import FileSystemLoader
from pytest_cookies.plugin import Cookies

Answers = Mapping[str, Any]

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "{{cookiecutter.project_slug}}"
SLUG = "my-service"  # What the default answers are rendered as.
PROMPTS: dict[str, Any] = json.loads(
    (ROOT / "cookiecutter.json").read_text(encoding="utf-8")
)
SWITCHES: dict[str, list[str]] = {
    prompt: choices for prompt, choices in PROMPTS.items() if isinstance(choices, list)
}
COMBINATIONS: list[dict[str, Any]] = [
    dict(zip(SWITCHES, choices, strict=True))
    for choices in itertools.product(*SWITCHES.values())
]


def name_of(answers: Answers) -> str:
    """Return a readable name of a variant: async-sqlalchemy-auto-repository."""
    return "-".join(str(answers[switch]) for switch in SWITCHES)


VARIANTS = {name_of(answers): answers for answers in COMBINATIONS}
DEFAULT = VARIANTS["async-sqlalchemy-auto-repository"]
# What has no choice in common with it.
OPPOSITE = VARIANTS["sync-sqlmodel-manual-unit_of_work"]
EXTREMES = [DEFAULT, OPPOSITE]
# Five variants in which each choice of a switch meets each choice of any other.
PAIRS = [
    DEFAULT,
    VARIANTS["async-sqlmodel-manual-unit_of_work"],
    VARIANTS["sync-sqlalchemy-manual-unit_of_work"],
    VARIANTS["sync-sqlmodel-auto-unit_of_work"],
    VARIANTS["sync-sqlmodel-manual-repository"],
]


def settings_in(home: Path) -> Path:
    """Return a configuration of cookiecutter that keeps all it stores in a folder."""
    config = home / "cookiecutter.yaml"
    folders = ("cookiecutters_dir", "replay_dir")
    config.write_text("".join(f"{each}: '{home / each}'\n" for each in folders))
    return config


def environment(home: Path) -> dict[str, str]:
    """Return the environment for a command that must not touch its user's settings."""
    return os.environ | {
        "COOKIECUTTER_CONFIG": str(settings_in(home)),
        "HOME": str(home),
        "PYTHONUTF8": "1",
    }


def render(answers: Answers, folder: Path, *, accept_hooks: bool = True) -> Path:
    """Return the project that cookiecutter itself renders into an existing folder."""
    project = cookiecutter(
        str(ROOT),
        no_input=True,
        extra_context=answers,
        output_dir=str(folder),
        config_file=str(settings_in(folder)),
        accept_hooks=accept_hooks,
    )
    return Path(project)


def render_page(page: Path, answers: Answers) -> str:
    """Return a page of the template's own docs as a project's pages are rendered."""
    context = generate_context(
        str(ROOT / "cookiecutter.json"), extra_context=dict(answers)
    )
    config = prompt_for_config(context, no_input=True)
    jinja = create_env_with_context({"cookiecutter": config})
    jinja.loader = FileSystemLoader([page.parent, ROOT / "templates"])
    rendered: str = jinja.get_template(page.name).render(cookiecutter=config)
    return rendered


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the content of each file below a folder by its name there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def difference(found: Set[str], declared: Set[str]) -> str:
    """Return what is found but not declared, and the other way round, a line each."""
    return "\n".join(
        [
            "",
            *(f"found, not declared: {name}" for name in sorted(found - declared)),
            *(f"declared, not found: {name}" for name in sorted(declared - found)),
        ]
    )


class Bakery:
    """Renders the template once for each set of answers in a test session.

    All tests read the same rendering, those in other processes too, so that none may
    change it: what runs inside a project runs in a copy.
    """

    def __init__(self, cookies: Cookies, shelf: Path) -> None:
        """Bake with pytest-cookies, and keep the renderings on the shelf."""
        self._cookies = cookies
        self._shelf = shelf

    def __call__(self, **answers: Any) -> Path:
        """Return the project rendered with these answers and defaults for the rest."""
        order = json.dumps(answers, sort_keys=True).encode()
        place = self._shelf / hashlib.sha256(order).hexdigest()[:16]
        if not place.exists():
            result = self._cookies.bake(extra_context=answers, template=str(ROOT))
            if result.exception:
                raise result.exception
            try:
                result.project_path.parent.rename(place)
            except OSError:
                if not place.exists():
                    raise
                # Another process was first, and its rendering is as good.
        (project,) = place.iterdir()
        return project
