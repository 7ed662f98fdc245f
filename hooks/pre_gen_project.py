"""Refuses names that cannot work, before any file is written.

Cookiecutter renders this file with the answers and runs it. They arrive as JSON in
a raw string and are never code: JSON in ASCII holds no three quotes in a row, and
each of its backslashes keeps what follows from ending the string.
"""

from __future__ import annotations

import json
import keyword
import re
import sys
import unicodedata
from collections.abc import Mapping

ANSWERS = r"""{
    "project_name": {{ cookiecutter.project_name | tojson }},
    "project_slug": {{ cookiecutter.project_slug | tojson }},
    "description": {{ cookiecutter.description | tojson }},
    "author_name": {{ cookiecutter.author_name | tojson }}
}"""

LONGEST_TEXT = 200
LONGEST_SLUG = 64
LONGEST_SHOWN = 64
SLUG = re.compile("[a-z](?:-?[a-z0-9])*")

# What is proposed where nothing of the answer is left.
DEFAULTS = {
    "project_name": "My Service",
    "description": "A service with a database.",
    "author_name": "The Team",
}

# The build backend refuses an author without a name.
NEVER_BLANK = {"project_name", "author_name"}

# Each of these ends a line or cannot be encoded, in one of the formats rendered.
FORBIDDEN_CATEGORIES = {
    "Cc": "a control character",
    "Cs": "half of a surrogate pair",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}

# A project of the same name as what it depends on could not install that.
DEPENDENCIES = """
    aiosqlite alembic annotated-doc annotated-types anyio argon2 argon2-cffi
    argon2-cffi-bindings ast-serialize asyncpg certifi cffi click colorama coverage
    dotenv fastapi greenlet h11 hatchling httpcore httpcore2 httptools httpx httpx2
    httpx2-jsfetch idna iniconfig jwt librt mako markupsafe multipart mypy
    mypy-extensions opentelemetry opentelemetry-api opentelemetry-sdk
    opentelemetry-semantic-conventions packaging pathspec pip pluggy psycopg
    psycopg-binary pwdlib pycparser pydantic pydantic-core pydantic-settings pygments
    pyjwt pytest python-dotenv python-multipart pyyaml ruff setuptools sqlalchemy
    sqlmodel stamina starlette tenacity truststore typing-extensions typing-inspection
    tzdata uvicorn uvloop watchfiles websockets yaml
"""
PACKAGES = frozenset({"app", "migrations", "tests"})
WINDOWS_DEVICES = frozenset(
    {"aux", "con", "nul", "prn"}
    | {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}
)


def refusal(answers: Mapping[str, object]) -> str | None:
    """Return one line that says why these answers cannot work, None if they can."""
    for prompt, answer in answers.items():
        is_slug = prompt == "project_slug"
        if not isinstance(answer, str):
            fault: str | None = "it is not text"
        elif is_slug:
            fault = fault_in_slug(answer)
        elif prompt in NEVER_BLANK and not answer.strip():
            fault = "it is blank"
        else:
            fault = fault_in_text(answer)
        if fault:
            similar = similar_slug(answer) if is_slug else similar_text(prompt, answer)
            return f"{prompt} cannot be {shown(answer)}: {fault}. {similar!r} would do."
    return None


def fault_in_text(text: str) -> str | None:
    """Return what keeps a free text from being rendered into every format."""
    for character in text:
        kind = FORBIDDEN_CATEGORIES.get(unicodedata.category(character))
        if kind:
            return f"it has {kind}, U+{ord(character):04X}"
    if len(text) > LONGEST_TEXT:
        return f"it is longer than {LONGEST_TEXT} characters"
    return None


def fault_in_slug(slug: str) -> str | None:
    """Return what keeps a slug from being the name of a folder and distribution."""
    if not SLUG.fullmatch(slug):
        return (
            "it takes lower-case letters, digits and single hyphens,"
            " begins with a letter and ends with a letter or a digit"
        )
    if not 2 <= len(slug) <= LONGEST_SLUG:
        return f"it takes 2 to {LONGEST_SLUG} characters"
    if keyword.iskeyword(slug):
        return "it is a keyword of Python"
    if slug in DEPENDENCIES.split():
        return "it is the name of a dependency"
    if slug in PACKAGES:
        return "the project has a package of that name"
    if slug in WINDOWS_DEVICES:
        return "Windows keeps it for a device"
    return None


def similar_text(prompt: str, answer: object) -> str:
    """Return an acceptable text, much like the beginning of the answer."""
    text = answer if isinstance(answer, str) else ""
    cleaned = "".join(" " if fault_in_text(each) else each for each in text)
    return cleaned[:LONGEST_SHOWN].strip() or DEFAULTS[prompt]


def similar_slug(answer: object) -> str:
    """Return an acceptable slug, much like the answer."""
    words = re.findall("[a-z0-9]+", answer.lower() if isinstance(answer, str) else "")
    stem = "-".join(words)[: LONGEST_SLUG - len("-service")].rstrip("-")
    candidates = (stem, f"{stem}-service", f"service-{stem}")
    return next((each for each in candidates if not fault_in_slug(each)), "my-service")


def shown(answer: object) -> str:
    """Return the answer as it can stand in one line on any terminal."""
    text = repr(answer)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


if __name__ == "__main__":
    reason = refusal(json.loads(ANSWERS))
    if reason:
        sys.exit(reason)
