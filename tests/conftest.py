"""What the tests share: renderings, and a PostgreSQL of our own."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from pytest_cookies.plugin import Cookies

from tests import evidence
from tests.follow import CHECKS, Prepare, follow
from tests.owner import Run, commit, copy_template
from tests.postgres import Keeper, Server, ask_for_url
from tests.service import PROGRAMS
from tests.template import (
    COMBINATIONS,
    EXTREMES,
    PAIRS,
    ROOT,
    Answers,
    Bakery,
    name_of,
    render_page,
)

KEEPER = pytest.StashKey[Keeper]()
ADDRESS = pytest.StashKey[tuple[int, bytes]]()

settings.register_profile("template", deadline=None)
settings.load_profile("template")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what runs the slow tests on all variants rather than on the six."""
    described = "run slow tests on all 16 variants, not only on those in PAIRS"
    parser.addoption("--all-variants", action="store_true", help=described)


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave most variants out of the slow tests, unless all are asked for."""
    left_out = []
    for item in items:
        if variant := evidence.variant_of(item):
            item.user_properties.append((evidence.VARIANT, name_of(variant)))
            if variant not in variants_for(item) and not config.option.all_variants:
                left_out.append(item)
    items[:] = [each for each in items if each not in left_out]
    config.hook.pytest_deselected(items=left_out)


def variants_for(item: pytest.Item) -> list[dict[str, Any]]:
    """Return the variants that are enough for a test, when nobody asks for all."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if not item.get_closest_marker("slow") or "mutant" in parameters:
        return COMBINATIONS  # a mutant has the variant that it needs
    if item.get_closest_marker("rare"):
        return []
    # The example's own tests are the bare project's, and more.
    is_bare = parameters.get("answers") is False
    return EXTREMES if item.get_closest_marker("costly") or is_bare else PAIRS


def pytest_configure(config: pytest.Config) -> None:
    """Make one keeper for the session, known to all of its processes."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is None:
        config.stash[KEEPER] = Keeper()
        config.stash[ADDRESS] = config.stash[KEEPER].address
        # Whoever ends the session by kill leaves no server's data behind either.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    else:
        config.stash[ADDRESS] = worker["keeper"]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist where the keeper is."""
    node.workerinput["keeper"] = node.config.stash[ADDRESS]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let what is noted from now on be this test's."""
    evidence.running = item


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the slow tests have found out."""
    reports = [
        report
        for kind in ("passed", "failed", "error", "")
        for report in terminalreporter.getreports(kind)
        if "slow" in report.keywords
    ]
    if lines := evidence.table(reports):
        terminalreporter.section("variants")
        terminalreporter.write("\n".join([*lines, ""]))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the server that the session started, if it did."""
    if KEEPER in config.stash:
        config.stash[KEEPER].stop()


@pytest.fixture(scope="session")
def bake(cookies_session: Cookies, tmp_path_factory: pytest.TempPathFactory) -> Bakery:
    """Render a project; each set of answers once a session. Never change the result."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    shelf = folder / "renderings"
    shelf.mkdir(exist_ok=True)
    return Bakery(cookies_session, shelf)


@pytest.fixture(scope="session")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mypy learns of the libraries, kept from one project to the next.

    Their modules have the same names; mypy notices that the content is another.
    """
    return tmp_path_factory.mktemp("mypy")


@pytest.fixture(scope="session")
def tools(mypy_cache: Path) -> dict[str, Any]:
    """The settings with which a page's commands find their programs, and no cache.

    Only mypy keeps what it learns of the libraries, from one variant to the next.
    """
    return {"PATH": PROGRAMS, "MYPY_CACHE_DIR": mypy_cache, "RUFF_NO_CACHE": "true"}


@pytest.fixture(params=COMBINATIONS, ids=name_of)
def variant(request: pytest.FixtureRequest) -> Answers:
    """One of the 16 variants, as answers to the prompts."""
    answers: Answers = request.param
    return answers


@pytest.fixture(params=[True, False], ids=["example", "bare"])
def answers(request: pytest.FixtureRequest, variant: Answers) -> Answers:
    """One of the 16 variants, with and without the example."""
    return {**variant, "example": request.param}


@pytest.fixture
def rendering(answers: Answers, bake: Bakery) -> Path:
    """The project that the answers give; never change it."""
    return bake(**answers)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where projects stay that have the feature on which recipes build."""
    return tmp_path_factory.mktemp("featured")


@pytest.fixture
def prepare(
    bake: Bakery, shelf: Path, tools: dict[str, Any], tmp_path: Path
) -> Prepare:
    """Give what follows a recipe in a project of some variant."""

    def prepare(variant: Answers, recipe: str) -> Path:
        featured = shelf / name_of(variant)
        if not featured.exists():
            # Half of the variants are bare: recipes do not need the shop.
            example = variant["commit"] == "auto"
            shutil.copytree(bake(**variant, example=example), featured)
            follow("docs/add-a-feature.md", featured, omitting=CHECKS, **tools)
        project = shutil.copytree(featured, tmp_path / "project")
        page = f"docs/recipes/{recipe}.md"
        (project / page).parent.mkdir()
        text = render_page(ROOT / page, variant)
        (project / page).write_text(text, encoding="utf-8")
        follow(page, project, **tools)
        return project

    return prepare


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs an owner's commands, apart from this user's settings."""
    return Run(tmp_path)


@pytest.fixture
def template(run: Run, tmp_path: Path) -> Path:
    """The template in a git repository: as it lies here, committed or not."""
    folder = tmp_path / "template.git"
    copy_template(run, folder)
    commit(run, folder)
    return folder


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> Iterator[Server]:
    """The PostgreSQL of the session: TEST_DATABASE_URL's, or else one of our own."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        server = Server(url)
        yield server
        server.drop_databases()
    else:
        yield Server(ask_for_url(pytestconfig.stash[ADDRESS]))


@pytest.fixture
def database(server: Server) -> str:
    """The URL of an empty database on PostgreSQL."""
    return server.create_database()
