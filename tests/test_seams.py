"""Each switch changes exactly the files that it is said to change."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from cookiecutter.utils import create_env_with_context

from tests.template import (
    COMBINATIONS,
    PROMPTS,
    ROOT,
    SOURCE,
    SWITCHES,
    Answers,
    Bakery,
    difference,
    files_in,
)
from tests.test_render import FILES_WITH

# The rendered files that each switch changes, adds or removes in some variant.
SEAMS: dict[str, set[str]] = {
    "io": {
        "README.md",
        "app/concurrency.py",
        "app/db/database.py",
        "app/db/driver.py",
        "app/db/engine.py",
        "app/db/pending.py",
        "app/db/repository.py",
        "app/db/schema_changes.py",
        "app/db/session.py",
        "app/dependencies.py",
        "app/health.py",
        "app/main.py",
        "app/orders/catalogue.py",
        "app/orders/fulfilment.py",
        "app/orders/queries.py",
        "app/orders/repository.py",
        "app/orders/router.py",
        "app/orders/service.py",
        "app/products/queries.py",
        "app/products/repository.py",
        "app/products/router.py",
        "app/products/service.py",
        "app/routing.py",
        "app/run.py",
        "app/scripts/fulfil_orders.py",
        "app/streaming.py",
        "app/transaction.py",
        "app/users/dependencies.py",
        "app/users/queries.py",
        "app/users/repository.py",
        "app/users/router.py",
        "app/users/service.py",
        "docs/add-a-feature.md",
        "docs/relationships.md",
        "docs/sessions/background.md",
        "docs/sessions/connection-state.md",
        "docs/sessions/long-calls.md",
        "docs/sessions/reading.md",
        "docs/sessions/scripts.md",
        "docs/sessions/serializable.md",
        "docs/sessions/sql.md",
        "docs/sessions/streaming.md",
        "docs/sessions/writing.md",
        "docs/settings.md",
        "docs/who-is-asking.md",
        "migrations/env.py",
        "pyproject.toml",
        "tests/factories.py",
        "tests/session/conftest.py",
        "tests/session/probe.py",
        "tests/session/test_asyncio.py",
        "tests/session/test_changes.py",
        "tests/session/test_connection_state.py",
        "tests/session/test_dependencies.py",
        "tests/session/test_engine.py",
        "tests/session/test_errors.py",
        "tests/session/test_errors_after_commit.py",
        "tests/session/test_hosts.py",
        "tests/session/test_leaks.py",
        "tests/session/test_lost_transactions.py",
        "tests/session/test_lost_updates.py",
        "tests/session/test_models.py",
        "tests/session/test_objects_across_transactions.py",
        "tests/session/test_one_session.py",
        "tests/session/test_outside.py",
        "tests/session/test_repository.py",
        "tests/session/test_savepoints.py",
        "tests/session/test_schema_changes.py",
        "tests/session/test_threads.py",
        "tests/session/test_timeouts.py",
        "tests/session/test_unit_of_work.py",
        "tests/session/test_units.py",
        "tests/support.py",
    },
    "orm": {
        "README.md",
        "app/db/base.py",
        "app/db/repository.py",
        "app/db/session.py",
        "app/orders/models.py",
        "app/orders/repository.py",
        "app/products/models.py",
        "app/products/repository.py",
        "app/users/models.py",
        "app/users/repository.py",
        "docs/add-a-feature.md",
        "docs/relationships.md",
        "docs/sessions/scripts.md",
        "docs/sessions/sql.md",
        "docs/who-is-asking.md",
        "pyproject.toml",
    },
    "commit": {
        "README.md",
        "app/orders/service.py",
        "app/products/service.py",
        "app/transaction.py",
        "app/users/service.py",
        "docs/add-a-feature.md",
        "docs/relationships.md",
        "docs/sessions/background.md",
        "docs/sessions/long-calls.md",
        "docs/sessions/serializable.md",
        "docs/sessions/sql.md",
        "docs/sessions/writing.md",
        "docs/who-is-asking.md",
        "tests/session/probe.py",
        "tests/session/test_commit.py",
        "tests/session/test_errors_after_commit.py",
        "tests/session/test_unit_of_work.py",
    },
    "pattern": {
        "README.md",
        "app/orders/service.py",
        "app/products/service.py",
        "app/repositories.py",
        "app/transaction.py",
        "app/users/dependencies.py",
        "app/users/service.py",
        "docs/add-a-feature.md",
        "docs/relationships.md",
        "docs/remove-the-shop.md",
        "docs/sessions/background.md",
        "docs/sessions/long-calls.md",
        "docs/sessions/reading.md",
        "docs/sessions/serializable.md",
        "docs/sessions/sql.md",
        "docs/sessions/writing.md",
        "docs/who-is-asking.md",
        "tests/session/probe.py",
        "tests/session/test_commit.py",
        "tests/session/test_errors_after_commit.py",
        "tests/session/test_objects_across_transactions.py",
        "tests/session/test_unit_of_work.py",
    },
    "example": FILES_WITH["example", True]
    | FILES_WITH["example", False]
    | {
        ".env.example",
        "README.md",
        "app/config.py",
        "app/main.py",
        "app/repositories.py",
        "docs/add-a-feature.md",
        "docs/changing.md",
        "docs/errors.md",
        "docs/sessions/long-calls.md",
        "docs/sessions/reading.md",
        "docs/sessions/scripts.md",
        "docs/sessions/serializable.md",
        "docs/settings.md",
        "pyproject.toml",
        "tests/conftest.py",
    },
}

# What answers "when does it commit?": all that `commit` and `pattern` change of the
# app, beside the services that write.
POLICY = {
    "commit": {"app/transaction.py"},
    "pattern": {
        "app/repositories.py",  # what a unit of work offers
        "app/transaction.py",
        "app/users/dependencies.py",  # asks a unit of work for its session
    },
}
WRITES_OR_SHOWS_IT = re.compile(
    r"app/\w+/service\.py|tests/session/\w+\.py|docs/[\w/-]+\.md|README\.md"
)

# What is asynchronous in both worlds: sync renderings say async and await only here.
ASYNC_IN_BOTH = {
    "app/concurrency.py",
    "app/db/admission.py",
    "app/db/pending.py",
    "app/dependencies.py",
    "app/health.py",
    "app/main.py",
    "app/middleware.py",
    "app/problems.py",
    "app/routing.py",
    "app/run.py",
    "app/streaming.py",
    "app/transaction.py",
    "app/users/passwords.py",
    "app/users/sign_in.py",
    "app/users/tokens.py",
    "app/users/transfers.py",
    "tests/session/test_admission.py",
    "tests/session/test_cancelling.py",
    "tests/session/test_long_calls.py",
    "tests/session/test_own_sessions.py",
    "tests/session/test_streams.py",
    "tests/session/test_threads.py",
    "tests/test_auth.py",
    "tests/test_health.py",
    "tests/test_logs.py",
    "tests/test_problems.py",
    "tests/support.py",
}

# The template's files that ask for `io` themselves, beside those that are wrapped.
ASK_FOR_IO = {
    "README.md",
    "app/db/engine.py",
    "app/db/pending.py",
    "app/db/session.py",
    "app/dependencies.py",
    "app/main.py",
    "app/routing.py",
    "app/run.py",
    "app/scripts/{% if cookiecutter.example %}fulfil_orders.py{% endif %}",
    "app/streaming.py",
    "app/db/{% if cookiecutter.io == 'async' %}driver.py{% endif %}",
    "app/db/{% if cookiecutter.io == 'async' %}schema_changes.py{% endif %}",
    "app/db/{% if cookiecutter.io == 'sync' %}driver.py{% endif %}",
    "app/db/{% if cookiecutter.io == 'sync' %}schema_changes.py{% endif %}",
    "app/{% if cookiecutter.io == 'sync' %}concurrency.py{% endif %}",
    "app/{% if cookiecutter.pattern == 'repository' %}transaction.py{% endif %}",
    "app/{% if cookiecutter.pattern == 'unit_of_work' %}transaction.py{% endif %}",
    "docs/sessions/connection-state.md",
    "docs/sessions/long-calls.md",
    "docs/sessions/scripts.md",
    "docs/sessions/serializable.md",
    "docs/settings.md",
    "migrations/env.py",
    "pyproject.toml",
    "tests/session/probe.py",
    "tests/session/test_connection_state.py",
    "tests/session/test_engine.py",
    "tests/session/test_errors.py",
    "tests/session/test_one_session.py",
    "tests/session/test_repository.py",
    "tests/session/test_schema_changes.py",
    "tests/session/{% if cookiecutter.io == 'async' %}test_asyncio.py{% endif %}",
    "tests/session/{% if cookiecutter.io == 'sync' %}test_threads.py{% endif %}",
    "tests/support.py",
}

# The only files that a text answer reaches, always escaped for their format.
SHOW_TEXT = {
    "README.md",
    "pyproject.toml",
}

# What would show a reader that there are other variants.
STRANGERS = {
    ("io", "async"): ["psycopg"],
    ("io", "sync"): ["asyncpg", "aiosqlite", "AsyncSession", "AsyncEngine"],
    ("orm", "sqlalchemy"): ["sqlmodel", "SQLModel"],
    ("pattern", "repository"): ["unit_of_work", "UnitOfWork", "uow"],
}

WRAPPERS = {
    path.name: path.read_text(encoding="utf-8")
    for path in (ROOT / "templates").glob("*.jinja")
}
REPLACEMENTS = {
    name: [
        (word.replace(r"\n", "\n"), replacement)
        for word, replacement in re.findall(r"replace\('([^']*)', '([^']*)'\)", text)
    ]
    for name, text in WRAPPERS.items()
}
SOURCES = {name: content.decode() for name, content in files_in(SOURCE).items()}
WRAPPED = [name for name in SOURCES if SOURCES[name].startswith("{% extends")]
VERBATIM = re.compile(r"{% block verbatim %}\n(.*){% endblock %}", re.DOTALL)
TEXT = re.compile(r"cookiecutter\._*(project_name|description|author_name)")
TAG = re.compile(
    r'\{% (extends "\w+.jinja"|block \w+|endblock|if [^%]+|else|endif'
    r"|(end)?raw) %\}"
)
MOST_TAGS = 6  # What varies more is cut into files, or written once for a wrapper.
JINJA = create_env_with_context({"cookiecutter": PROMPTS})

CHOICES: dict[str, list[Any]] = SWITCHES | {"example": [True, False]}
ALL = [
    {**each, "example": example} for each in COMBINATIONS for example in (True, False)
]

Files = dict[str, bytes]
Renderings = dict[frozenset[tuple[str, Any]], Files]


@pytest.fixture(scope="session")
def renderings(bake: Bakery) -> Renderings:
    """The files of all variants, with and without the example, by their answers."""
    return {frozenset(answers.items()): files_in(bake(**answers)) for answers in ALL}


def flips(switch: str, renderings: Renderings) -> Iterator[tuple[Files, Files]]:
    """Yield each pair of renderings that differ by that switch alone."""
    first, second = CHOICES[switch]
    for answers in ALL:
        if answers[switch] == first:
            flipped = answers | {switch: second}
            yield (
                renderings[frozenset(answers.items())],
                renderings[frozenset(flipped.items())],
            )


def files_with(
    switch: str, choice: str, renderings: Renderings
) -> Iterator[tuple[str, bytes]]:
    """Yield each file of each rendering with that choice."""
    for answers in ALL:
        if answers[switch] == choice:
            yield from renderings[frozenset(answers.items())].items()


def has_async(source: bytes) -> bool:
    """Say whether a source has these words as words of Python."""
    return any(
        token.type == tokenize.NAME and token.string in ("async", "await")
        for token in tokenize.tokenize(BytesIO(source).readline)
    )


def rendered_name(source: str, answers: Answers) -> str:
    """Return the name that a file of the template gets, empty if it is left out."""
    folder, _, name = source.rpartition("/")
    rendered: str = JINJA.from_string(name).render(cookiecutter=answers)
    return f"{folder}/{rendered}" if folder and rendered else rendered


@pytest.mark.parametrize("switch", CHOICES)
def test_a_switch_changes_its_files_and_no_others(
    switch: str, renderings: Renderings
) -> None:
    changed = {
        name
        for one, other in flips(switch, renderings)
        for name in one.keys() | other.keys()
        if one.get(name) != other.get(name)
    }
    assert changed == SEAMS[switch], difference(changed, SEAMS[switch])


@pytest.mark.parametrize("switch", POLICY)
def test_when_it_commits_is_said_in_one_place(switch: str) -> None:
    others = {name for name in SEAMS[switch] if not WRITES_OR_SHOWS_IT.fullmatch(name)}
    assert others == POLICY[switch], difference(others, POLICY[switch])


def test_feature_tests_are_the_same_bytes_in_all_variants(
    renderings: Renderings,
) -> None:
    versions: dict[str, set[bytes]] = {}
    for files in renderings.values():
        for name, content in files.items():
            if re.fullmatch(r"tests/test_\w+\.py", name):
                versions.setdefault(name, set()).add(content)
    assert versions
    assert [name for name, contents in versions.items() if len(contents) > 1] == []


def test_sync_renderings_are_asynchronous_only_where_both_worlds_are(
    renderings: Renderings,
) -> None:
    files = {*files_with("io", "sync", renderings)}
    found = {
        name for name, content in files if name.endswith(".py") and has_async(content)
    }
    assert found == ASYNC_IN_BOTH, difference(found, ASYNC_IN_BOTH)


@pytest.mark.parametrize(("switch", "choice"), STRANGERS)
def test_no_rendering_shows_a_trace_of_another(
    switch: str, choice: str, renderings: Renderings
) -> None:
    found = {
        (name, stranger)
        for name, content in files_with(switch, choice, renderings)
        for stranger in STRANGERS[switch, choice]
        if stranger.encode() in content
    }
    assert found == set()


def extends(wrapper: str) -> str:
    """Return how a file begins that goes through a wrapper."""
    return f'{{% extends "{wrapper}" %}}'


def made_sync(code: str) -> str:
    """Return what the wrapper makes of async code."""
    for word, replacement in REPLACEMENTS["async.jinja"]:
        code = code.replace(word, replacement)
    return code


def verbatim_in(source: str, answers: Answers) -> str:
    """Return what a file says in both worlds as it stands, rendered."""
    block = VERBATIM.search(SOURCES[source])
    text = block[1] if block else ""
    rendered: str = JINJA.from_string(text).render(cookiecutter=answers)
    return rendered


def test_wrapped_files_become_sync_by_the_replacements_alone(
    renderings: Renderings,
) -> None:
    for answers in ALL:
        if answers["io"] == "sync":
            continue
        asynchronous = renderings[frozenset(answers.items())]
        synchronous = renderings[frozenset((answers | {"io": "sync"}).items())]
        for source in WRAPPED:
            name = rendered_name(source, answers)
            if name and source not in ASK_FOR_IO:
                verbatim = verbatim_in(source, answers)
                code = asynchronous[name].decode().removesuffix(verbatim)
                assert made_sync(code) + verbatim == synchronous[name].decode(), name


def test_what_is_verbatim_stays_as_it_is(renderings: Renderings) -> None:
    asynchronous = set()
    for answers in ALL:
        files = renderings[frozenset(answers.items())]
        for source in WRAPPED:
            name = rendered_name(source, answers)
            if name and (verbatim := verbatim_in(source, answers)):
                assert files[name].decode().endswith(verbatim), name
                asynchronous.add("async def " in verbatim)
    assert True in asynchronous


def test_each_replacement_is_needed(renderings: Renderings) -> None:
    code = [
        files[name].decode().removesuffix(verbatim_in(source, answers))
        for answers in ALL
        if answers["io"] == "async"
        for files in [renderings[frozenset(answers.items())]]
        for source in WRAPPED
        if (name := rendered_name(source, answers))
    ]
    for word, _ in REPLACEMENTS["async.jinja"]:
        assert any(word in text for text in code), word


@pytest.mark.parametrize("wrapper", ["repository.jinja", "service.jinja"])
def test_each_replacement_of_another_wrapper_is_needed(wrapper: str) -> None:
    code = [text for text in SOURCES.values() if text.startswith(extends(wrapper))]
    for word, _ in REPLACEMENTS[wrapper]:
        assert any(word in text for text in code), word


def test_services_commit_where_leaving_their_scope_does_not(
    renderings: Renderings,
) -> None:
    for choice, commits in (("auto", False), ("manual", True)):
        found = {
            b".commit()" in content
            for name, content in files_with("commit", choice, renderings)
            if name.endswith("/service.py")
        }
        assert found == {commits}


def test_only_the_declared_files_ask_for_io() -> None:
    asking = {
        name for name, text in SOURCES.items() if "cookiecutter.io" in name + text
    }
    assert asking == ASK_FOR_IO, difference(asking, ASK_FOR_IO)


def test_only_the_declared_files_show_text() -> None:
    showing = {name for name, text in SOURCES.items() if TEXT.search(text)}
    assert showing == SHOW_TEXT, difference(showing, SHOW_TEXT)


@pytest.mark.parametrize("source", SOURCES)
def test_tags_are_few_and_stand_alone_on_their_lines_and_in_no_other(
    source: str,
) -> None:
    lines = [line for line in SOURCES[source].splitlines() if "{%" in line]
    assert [line for line in lines if not TAG.fullmatch(line)] == []
    depth = 0
    for line in lines:
        depth += line.startswith("{% if") - line.startswith("{% endif")
        assert depth in {0, 1}, line
    assert sum(line.startswith("{% if") for line in lines) <= MOST_TAGS
