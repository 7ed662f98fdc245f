"""Each variant is rendered whole and clean, the same each time, and nothing more."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
import sys
import tokenize
import tomllib
from io import BytesIO
from pathlib import Path, PurePosixPath

import pytest
import yaml
from ruff import find_ruff_bin

from tests.template import (
    ROOT,
    SLUG,
    SOURCE,
    Answers,
    Bakery,
    difference,
    environment,
    files_in,
    render,
)

# What stands in every rendering, one line a file.
FILES = {
    ".dockerignore",
    ".editorconfig",
    ".env.example",
    ".github/dependabot.yml",
    ".github/workflows/ci.yml",
    ".gitignore",
    ".gitlab-ci.yml",
    ".pre-commit-config.yaml",
    "AGENTS.md",
    "Dockerfile",
    "README.md",
    "app/__init__.py",
    "app/config.py",
    "app/context.py",
    "app/db/__init__.py",
    "app/db/admission.py",
    "app/db/base.py",
    "app/db/changes.py",
    "app/db/database.py",
    "app/db/driver.py",
    "app/db/engine.py",
    "app/db/errors.py",
    "app/db/migrations.py",
    "app/db/pending.py",
    "app/db/pool.py",
    "app/db/repository.py",
    "app/db/schema_changes.py",
    "app/db/session.py",
    "app/db/sqlite.py",
    "app/db/tables.py",
    "app/db/timeouts.py",
    "app/db/transaction_errors.py",
    "app/dependencies.py",
    "app/health.py",
    "app/logs.py",
    "app/main.py",
    "app/metrics.py",
    "app/middleware.py",
    "app/problems.py",
    "app/routing.py",
    "app/run.py",
    "app/schemas.py",
    "app/streaming.py",
    "app/transaction.py",
    "compose.yaml",
    "docs/add-a-feature.md",
    "docs/changing.md",
    "docs/deploying.md",
    "docs/errors.md",
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
    "migrations/env.py",
    "migrations/script.py.mako",
    "pyproject.toml",
    "tests/__init__.py",
    "tests/conftest.py",
    "tests/session/__init__.py",
    "tests/session/conftest.py",
    "tests/session/probe.py",
    "tests/session/test_admission.py",
    "tests/session/test_cancelling.py",
    "tests/session/test_changes.py",
    "tests/session/test_commit.py",
    "tests/session/test_connection_state.py",
    "tests/session/test_dependencies.py",
    "tests/session/test_engine.py",
    "tests/session/test_errors.py",
    "tests/session/test_errors_after_commit.py",
    "tests/session/test_hosts.py",
    "tests/session/test_layers.py",
    "tests/session/test_leaks.py",
    "tests/session/test_long_calls.py",
    "tests/session/test_lost_transactions.py",
    "tests/session/test_lost_updates.py",
    "tests/session/test_models.py",
    "tests/session/test_objects_across_transactions.py",
    "tests/session/test_one_session.py",
    "tests/session/test_outside.py",
    "tests/session/test_own_sessions.py",
    "tests/session/test_reading.py",
    "tests/session/test_repository.py",
    "tests/session/test_savepoints.py",
    "tests/session/test_schema_changes.py",
    "tests/session/test_streams.py",
    "tests/session/test_timeouts.py",
    "tests/session/test_units.py",
    "tests/support.py",
    "tests/test_health.py",
    "tests/test_logs.py",
    "tests/test_migrations.py",
    "tests/test_models.py",
    "tests/test_problems.py",
    "tests/test_settings.py",
}

# What stands only where an answer asks for it.
FILES_WITH: dict[tuple[str, str | bool], set[str]] = {
    ("io", "async"): {"tests/session/test_asyncio.py"},
    ("io", "sync"): {"app/concurrency.py", "tests/session/test_threads.py"},
    ("pattern", "unit_of_work"): {
        "app/repositories.py",
        "tests/session/test_unit_of_work.py",
    },
    ("example", True): {
        "app/orders/__init__.py",
        "app/orders/allocation.py",
        "app/orders/catalogue.py",
        "app/orders/fulfilment.py",
        "app/orders/models.py",
        "app/orders/queries.py",
        "app/orders/repository.py",
        "app/orders/router.py",
        "app/orders/schemas.py",
        "app/orders/service.py",
        "app/products/__init__.py",
        "app/products/models.py",
        "app/products/queries.py",
        "app/products/repository.py",
        "app/products/router.py",
        "app/products/schemas.py",
        "app/products/service.py",
        "app/scripts/__init__.py",
        "app/scripts/fulfil_orders.py",
        "app/users/__init__.py",
        "app/users/dependencies.py",
        "app/users/models.py",
        "app/users/passwords.py",
        "app/users/queries.py",
        "app/users/repository.py",
        "app/users/router.py",
        "app/users/schemas.py",
        "app/users/service.py",
        "app/users/sign_in.py",
        "app/users/tokens.py",
        "app/users/transfers.py",
        "docs/remove-the-shop.md",
        "migrations/versions/0001_shop.py",
        "tests/factories.py",
        "tests/test_auth.py",
        "tests/test_fulfilment.py",
        "tests/test_orders.py",
        "tests/test_products.py",
        "tests/test_transfers.py",
        "tests/test_users.py",
    },
    ("example", False): {
        "docs/who-is-asking.md",
        "migrations/versions/0001_first.py",
    },
}

# An opening of Jinja's; GitHub's expressions look alike but for the dollar.
LEFT_OVER = re.compile(r"(?<!\$)\{\{|\{%|\{#")
F_STRING = re.compile(r"(f|rf|fr)['\"]", re.IGNORECASE)
WINDOWS_REFUSES = re.compile(
    r'[<>:"\\|?*\x00-\x1f]|[. ]$|^(con|prn|aux|nul|(com|lpt)\d)(\.|$)', re.IGNORECASE
)


def test_the_files_are_the_expected_ones(answers: Answers, rendering: Path) -> None:
    asked_for = (
        files
        for (prompt, choice), files in FILES_WITH.items()
        if answers[prompt] == choice
    )
    expected = FILES.union(*asked_for)
    found = {*files_in(rendering)}
    assert found == expected, difference(found, expected)


def test_no_folder_is_empty(rendering: Path) -> None:
    folders = [path for path in rendering.rglob("*") if path.is_dir()]
    assert [folder for folder in folders if not any(folder.iterdir())] == []


def test_every_python_file_compiles(rendering: Path) -> None:
    for name, content in files_in(rendering).items():
        if name.endswith(".py"):
            compile(content, name, "exec", dont_inherit=True)


@pytest.mark.parametrize("command", ["check", "format --check --diff"])
def test_ruff_finds_nothing(command: str, rendering: Path) -> None:
    ended = subprocess.run(
        [find_ruff_bin(), *command.split(), "--no-cache", "."],
        cwd=rendering,
        capture_output=True,
        encoding="utf-8",
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_no_trace_of_the_template_is_left(rendering: Path) -> None:
    for name, content in files_in(rendering).items():
        assert b"cookiecutter" not in content.lower(), name
        pieces = [content.decode()]
        if name.endswith(".py") and b"{{" in content:
            # An f-string doubles its braces.
            tokens = tokenize.tokenize(BytesIO(content).readline)
            pieces = [each.string for each in tokens if not F_STRING.match(each.string)]
        assert [piece for piece in pieces if LEFT_OVER.search(piece)] == [], name


def test_links_lead_to_files_and_the_readme_links_to_each_page(rendering: Path) -> None:
    linked: dict[Path, set[Path]] = {}
    for page in rendering.resolve().rglob("*.md"):
        links = re.findall(r"\]\(([\w./-]+)\)", page.read_text(encoding="utf-8"))
        linked[page] = {(page.parent / link).resolve() for link in links}
    for paths in linked.values():
        assert [path for path in paths if not path.exists()] == []
    readme = rendering.resolve() / "README.md"
    assert linked.keys() - {readme} == linked[readme]


def test_data_files_parse(rendering: Path) -> None:
    for name, content in files_in(rendering).items():
        if name.endswith(".toml"):
            tomllib.loads(content.decode())
        elif name.endswith((".yaml", ".yml")):
            assert yaml.safe_load(content), name
        elif name.endswith(".json"):
            json.loads(content)


def test_lines_end_as_on_unix_and_the_last_one_ends_once(rendering: Path) -> None:
    for name, content in files_in(rendering).items():
        assert b"\r" not in content, name
        assert not content or re.search(rb"[^\n]\n\Z", content), name


def test_lines_in_the_template_end_as_on_unix() -> None:
    assert [
        name for name, content in files_in(SOURCE).items() if b"\r" in content
    ] == []


@pytest.mark.parametrize("example", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_rendering_depends_on_nothing_but_the_answers(
    example: bool, variant: Answers, bake: Bakery, tmp_path: Path
) -> None:
    answers = {**variant, "example": example}
    again = render(answers, tmp_path, accept_hooks=False)
    assert files_in(again) == files_in(bake(**answers))


def test_rendered_names_work_on_windows(rendering: Path) -> None:
    assert_names_work_on_windows(rendering)


def test_the_names_in_the_template_work_on_windows() -> None:
    assert_names_work_on_windows(SOURCE)


def assert_names_work_on_windows(folder: Path) -> None:
    """Check each part of each name, and that no two differ only by their case."""
    names = [*files_in(folder)]
    parts = {part for name in names for part in PurePosixPath(name).parts}
    assert [part for part in parts if WINDOWS_REFUSES.search(part)] == []
    assert len({name.lower() for name in names}) == len(names)
    assert max(map(len, names)) < 160  # Of 260, with the folder they lie in.


def test_only_empty_folders_of_the_project_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("app/empty/deep", "app/full", "tests/empty", ".git/refs", "data"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "app/full/__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        runpy.run_path(str(ROOT / "hooks" / "post_gen_project.py"))
        left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
        assert left == {
            ".git",
            ".git/refs",
            "app",
            "app/full",
            "app/full/__init__.py",
            "data",
        }


def test_the_last_words_are_the_next_commands_which_the_readme_has(
    tmp_path: Path,
) -> None:
    def words(temporary: Path) -> str:
        temporary.mkdir(exist_ok=True)
        folders = dict.fromkeys(("TEMP", "TMP", "TMPDIR"), str(temporary))
        return subprocess.run(
            [sys.executable, "-m", "cookiecutter", "--no-input", "-f", str(ROOT)],
            cwd=tmp_path,
            env=environment(tmp_path) | folders,
            capture_output=True,
            encoding="utf-8",
            check=True,
        ).stdout

    go, *commands = re.findall("^    (.+)$", words(tmp_path / "temporary"), re.M)
    project = tmp_path / SLUG
    assert shlex.split(go) == ["cd", str(project.resolve())]
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert len(commands) == 2
    assert "```sh\n" + "\n".join(commands) + "\n```" in readme
    # Where cruft renders to compare, nobody goes on.
    assert words(tmp_path) == ""
