"""What all tests share: databases, the app on them, a client, the leak check."""

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx2 import Response
from sqlalchemy import Table
from starlette.testclient import TestClient

from app.config import Settings
from app.db.base import metadata
from app.db.migrations import upgrade
from app.main import create_app
{% if cookiecutter.example %}
from tests.factories import cheap_hashing as cheap_hashing
from tests.factories import signed_in as signed_in
{% endif %}
from tests.support import (
    call,
    count_leaks,
    create_database,
    drop_database,
    empty_tables,
    make_settings,
)

SERVER_URL = os.environ.get("TEST_DATABASE_URL")
DATABASES = ["sqlite", "postgresql"] if SERVER_URL else ["sqlite"]

# The running apps, each with the tables to empty after a test.
running: list[tuple[FastAPI, TestClient, list[Table]]] = []


def pytest_collection_finish() -> None:
    """Let Python search for garbage in what tests make, not in all that is imported."""
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run asynchronous tests with asyncio, as uvicorn runs the app."""
    return "asyncio"


@contextmanager
def fresh_database(kind: str, folder: Path) -> Iterator[str]:
    """Give the URL of an empty database, which goes away afterwards."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'test.db'}"
    else:
        assert SERVER_URL is not None
        url = create_database(SERVER_URL)
        yield url
        drop_database(SERVER_URL, url)


@contextmanager
def serve(app: FastAPI, tables: list[Table]) -> Iterator[TestClient]:
    """Start `app` and give a client; `tables` are emptied after each test."""
    with TestClient(app) as client:
        this = (app, client, tables)
        running.append(this)
        yield client
        running.remove(this)  # pytest-xdist ends fixtures in another order
        clean_up(*this)


def clean_up(app: FastAPI, client: TestClient, tables: list[Table]) -> None:
    """Fail if a connection leaked, and empty the tables."""
    database = app.state.database
    assert call(client, count_leaks, database) == 0, "a connection leaked"
    call(client, empty_tables, database, tables)


@pytest.fixture(scope="session", params=DATABASES)
def settings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """Give settings with a migrated database, one for each kind of database."""
    folder = tmp_path_factory.mktemp(request.param)
    with fresh_database(request.param, folder) as url:
        settings = make_settings(url)
        upgrade(settings)
        yield settings


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[TestClient]:
    """Give a client of the app; each response must be a documented one."""
    app = create_app(settings)
    paths = app.openapi()["paths"]

    def refuse_undocumented(response: Response) -> None:
        path = response.request.url.path
        # The path itself, before a template that fits it.
        for each in sorted(paths, key=lambda each: "{" in each):
            if re.fullmatch(re.sub(r"{\w+}", "[^/]+", each), path):
                operation = paths[each].get(response.request.method.lower())
                status = str(response.status_code)
                assert operation is None or status in operation["responses"], (
                    f"{each} does not document {status}"
                )
                return

    with serve(app, metadata.sorted_tables[::-1]) as client:
        client.event_hooks = {"response": [refuse_undocumented]}
        yield client


@pytest.fixture(autouse=True)
def leave_nothing() -> Iterator[None]:
    """Clean up after each test."""
    yield
    for each in running:
        clean_up(*each)
