"""RealWorld's backend, made of a project, passes RealWorld's own collection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.realworld.__main__ import HERE, make
from tests.postgres import Server
from tests.postman import run_collection
from tests.service import BASH, MIGRATE, Service, run
from tests.template import Answers

pytestmark = [pytest.mark.slow, pytest.mark.costly]

COLLECTION = HERE / "collection" / "Conduit.postman_collection.json"
# What newman counts as well. None may be dropped.
REQUESTS, ASSERTIONS = 32, 311
CHECKS = "ruff check .\nruff format --check .\nmypy\n"
# Conduit's own tests, those of the project that it changes, and those of all models.
OWN = (
    *("test_conduit", "test_problems", "test_settings", "session/test_errors"),
    *("test_models", "test_migrations", "session/test_layers"),
)
PYTEST = " ".join(["pytest", "-q", *(f"tests/{name}.py" for name in OWN)])


def databases(project: Path, server: Server) -> Iterator[str]:
    """Give the URL of a migrated database of each kind."""
    for url in (f"sqlite:///{project / 'conduit.db'}", server.create_database()):
        run(project, *MIGRATE, DATABASE_URL=url)
        yield url


def test_conduit_passes_the_collection(
    variant: Answers, server: Server, tools: dict[str, Any], tmp_path: Path
) -> None:
    project = tmp_path / "conduit"
    make(project, variant)
    run(project, *BASH, CHECKS, **tools)
    for url in databases(project, server):
        with Service(project, DATABASE_URL=url) as service:
            variables = {
                "APIURL": f"{service.url}/api",
                "USERNAME": "jake",
                "EMAIL": "jake@jake.jake",
                "PASSWORD": "password",
            }
            results = run_collection(COLLECTION, service.client(), variables)
            failed = [
                (result.name, assertion)
                for result in results
                for assertion, holds in result.assertions.items()
                if not holds
            ]
            assert failed == []
            assert len(results) == REQUESTS
            assert sum(len(each.assertions) for each in results) == ASSERTIONS
            # It does not look at the status of each request; all of them succeed.
            assert [each for each in results if not 200 <= each.status < 300] == []
            assert "ERROR" not in service.log
    run(project, *BASH, PYTEST, TEST_DATABASE_URL=server.url, **tools)
