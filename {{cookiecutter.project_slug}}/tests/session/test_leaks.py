{% extends "async.jinja" %}
{% block code %}
"""Sessions give back their connections, however they end."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from starlette.testclient import TestClient

from app.config import Settings
from app.db import pool
from app.db.database import Database
from app.db.driver import DRIVER_ERRORS
from app.main import create_app
from tests.session.probe import Note, count
from tests.support import count_leaks, driver_of

# There is no absolute value of the 900th.
NUMBERS = """
WITH RECURSIVE numbers(n) AS (
    SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000
)
SELECT abs(-9223372036854775807 - n / 900) FROM numbers
"""


async def test_a_session_cannot_be_used_after_its_end(database: Database) -> None:
    async with database.write() as session:
        await session.get(Note, 1)
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        await session.get(Note, 1)


async def test_objects_stay_readable_after_the_commit(database: Database) -> None:
    async with database.write() as session:
        note = Note(text="kept")
        session.add(note)
        await session.commit()
    assert note.text == "kept"
    assert note.id is not None


async def test_a_single_read_opens_no_transaction(
    database: Database,
    notes_settings: Settings,
) -> None:
    if notes_settings.database_pooler == "transaction":
        pytest.skip("behind a pooler, what only reads is a transaction as well")
    async with database.read() as session:
        await count(session)
        assert await count_leaks(database) == 1, "checked out, and in no transaction"


async def fail(database: Database) -> None:
    async with database.write() as session:
        session.add(Note(text="lost"))
        await session.flush()
        raise RuntimeError("a bug")


async def test_an_exception_gives_the_connection_back(database: Database) -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        await fail(database)
    assert await count_leaks(database) == 0
    async with database.read() as reader:
        assert await count(reader) == 0


async def fail_to_roll_back(
    database: Database,
    kind: str,
    patch: pytest.MonkeyPatch,
) -> Any:
    """Return the driver's connection, of which one ROLLBACK has failed."""

    def fail(_: object) -> None:
        patch.undo()
        raise dialect.loaded_dbapi.ProgrammingError("busy")

    async with getattr(database, kind)() as session:
        dialect = session.get_bind().dialect
        await count(session)
        patch.setattr(dialect, "do_rollback", fail)
        return await driver_of(await session.connection())


@pytest.mark.parametrize("kind", ["snapshot", "write"])
async def test_a_connection_that_cannot_roll_back_is_replaced(
    database: Database,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed = await fail_to_roll_back(database, kind, monkeypatch)
    assert "connection lost while closing" in caplog.text
    assert await count_leaks(database) == 0
    async with getattr(database, kind)() as session:
        assert await driver_of(await session.connection()) is not failed
        assert await count(session) == 0


async def read_all(database: Database, statement: str) -> None:
    async with database.snapshot() as session:
        options = {"yield_per": 10}
        result = await session.stream(text(statement), execution_options=options)
        async for _ in result:
            pass


async def test_a_row_that_cannot_be_computed_costs_no_connection(
    database: Database,
) -> None:
    with pytest.raises((DBAPIError, *DRIVER_ERRORS)) as caught:
        await read_all(database, NUMBERS)
    assert not getattr(caught.value, "connection_invalidated", False)


def test_the_app_closes_all_connections_at_its_end(notes_settings: Settings) -> None:
    app = create_app(notes_settings)
    with TestClient(app) as client:
        assert client.get("/health/ready").status_code == 200
        assert client.get("/health/database").json()["checked_out"] == 1
        database = app.state.database
        pools = [database.read_engine.pool, database.readiness_engine.pool]
        assert [pool.checkedin() for pool in pools] == [1, 1]
    assert [pool.checkedin() for pool in pools] == [0, 0]


def test_a_stream_that_breaks_is_cut(probe: TestClient) -> None:
    with pytest.raises(RuntimeError, match="half of it"):
        probe.get("/notes/broken-stream")


def test_the_route_that_holds_a_connection_for_long_is_named(
    notes_settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    update = {"database_held_warning": 1e-9}
    with TestClient(create_app(notes_settings.model_copy(update=update))) as client:
        client.get("/health/database")
    assert "by GET /health/database" in caplog.text


async def test_holding_a_connection_for_long_is_logged(
    notes_settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    database = Database(
        notes_settings.model_copy(update={"database_held_warning": 1e-9})
    )
    caplog.set_level(logging.WARNING, "app")
    async with database.read() as session:
        await session.get(Note, 1)
    await database.dispose()
    assert "connection held for" in caplog.text


async def test_the_time_in_the_pool_does_not_count(
    notes_settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0
    monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=lambda: now))
    changes = {"database_held_warning": 10}
    async with Database(notes_settings.model_copy(update=changes)) as database:
        for seconds in (0, 11):
            async with database.read() as session:
                await session.get(Note, 1)
                now += seconds
            now += 20
    lines = [each.getMessage() for each in caplog.records if each.name == "app"]
    assert lines == ["connection held for 11.0 s by no request"]
{% endblock %}
