{% extends "async.jinja" %}
{% block code %}
"""A test app with the endpoints of `probe.py`, and sessions of the tests' own."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import APIRouter
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.testclient import TestClient

from app.config import Settings
from app.db.database import Database
from app.db.session import WriteSession
from app.main import create_app
from tests.conftest import serve
from tests.session import probe as notes
from tests.support import count_leaks, create_table, empty_tables, run

TABLE = notes.Base.metadata.tables["test_notes"]


@pytest.fixture(scope="session")
def notes_settings(settings: Settings) -> Settings:
    """Give a small pool and short timeouts, on a database with the table of notes."""
    run(create_table, settings, TABLE)
    return settings.model_copy(
        update={
            "database_pool_size": 1,
            "database_max_overflow": 1,
            "database_pool_timeout": 2,
            "database_statement_timeout": 1,
            "database_lock_timeout": 0.3,
        }
    )


@contextmanager
def serve_routers(
    settings: Settings,
    *routers: APIRouter,
    tables: Sequence[Table] = (TABLE,),
    **changes: Any,
) -> Iterator[TestClient]:
    """Start an app that has these endpoints too, on settings with some changes."""
    app = create_app(settings.model_copy(update=changes))
    for router in routers:
        app.include_router(router)
    with serve(app, [*tables]) as client:
        yield client


@pytest.fixture(scope="package")
def probe(notes_settings: Settings) -> Iterator[TestClient]:
    """Give a client of the test app."""
    with serve_routers(notes_settings, notes.router) as client:
        yield client


@pytest.fixture
async def database(notes_settings: Settings) -> AsyncIterator[Database]:
    """Give engines and sessions without an app around them."""
    database = Database(notes_settings)
    yield database
    assert await count_leaks(database) == 0
    await empty_tables(database, [TABLE])
    await database.dispose()


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[AsyncConnection]:
    """Give a connection whose transaction is never committed."""
    async with database.write_engine.connect() as connection:
        await connection.begin()
        yield connection
        await connection.rollback()


@pytest.fixture
async def session(connection: AsyncConnection) -> AsyncIterator[WriteSession]:
    """Give a session for tests of repositories: its commits end savepoints only.

    Whatever depends on a real COMMIT is tested with `database` or `probe`.
    """
    async with WriteSession(
        connection,
        join_transaction_mode="create_savepoint",
        expire_on_commit=False,
    ) as session:
        yield session
        await session.rollback()
{% endblock %}
