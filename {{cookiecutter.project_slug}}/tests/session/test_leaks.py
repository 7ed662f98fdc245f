{% extends "async.jinja" %}
{% block code %}
"""Sessions give back what they took, however they end (S5)."""

{% if cookiecutter.io == 'async' %}
import asyncio
import contextlib
import gc
{% endif %}
import logging
{% if cookiecutter.io == 'async' %}
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
from sqlalchemy.exc import DBAPIError, InvalidRequestError
{% else %}

import pytest
from sqlalchemy.exc import InvalidRequestError
{% endif %}
from starlette.testclient import TestClient

from app.config import Settings
{% if cookiecutter.io == 'async' %}
from app.db.database import Database
from app.db.errors import SnapshotNeededError
from app.db.session import ReadSession
{% else %}
from app.db.database import Database
{% endif %}
from app.main import create_app
{% if cookiecutter.io == 'async' %}
from tests.session.probe import SLOW, Note, count, count_apart
{% else %}
from tests.session.probe import Note, count
{% endif %}
from tests.support import count_leaks


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


async def fail_to_roll_back(database: Database, patch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise dialect.loaded_dbapi.ProgrammingError("busy")

    dialect = database.read_engine.dialect
    async with database.snapshot() as session:
        await count(session)
        patch.setattr(dialect, "do_rollback", fail)


async def test_a_rollback_that_fails_on_return_is_logged_and_leaks_nothing(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patch:
        await fail_to_roll_back(database, patch)
    assert "connection lost on its return" in caplog.text
    assert await count_leaks(database) == 0
    async with database.snapshot() as session:
        assert await count(session) == 0


{% if cookiecutter.io == 'async' %}
@pytest.fixture
async def keep_garbage() -> AsyncIterator[None]:
    """Collect no garbage meanwhile: that would give back some of what has leaked."""
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    # The driver tells the loop when it came too late to cancel a statement.
    loop.set_exception_handler(lambda *_: None)
    gc.disable()
    yield
    gc.enable()
    gc.collect()
    loop.set_exception_handler(handler)


async def count_lasting_leaks(database: Database) -> int:
    for _ in range(1_000):
        if not await count_leaks(database):
            return 0
        # The server hears a little later of what was cut.
        await anyio.sleep(0.005)
    return await count_leaks(database)


async def use_in_two_tasks(session: ReadSession, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await asyncio.gather(count(session), count(session))


async def leave_to_a_task(session: ReadSession, seconds: float) -> None:
    asyncio.create_task(count(session)).add_done_callback(asyncio.Task.exception)
    await anyio.sleep(seconds)


@pytest.mark.usefixtures("keep_garbage")
@pytest.mark.parametrize("misuse", [use_in_two_tasks, leave_to_a_task])
@pytest.mark.parametrize("kind", ["write", "read", "snapshot"])
async def test_a_session_in_several_tasks_leaks_nothing(
    database: Database,
    notes_settings: Settings,
    kind: str,
    misuse: Callable[[ReadSession, float], Awaitable[None]],
) -> None:
    if notes_settings.database_pooler == "transaction":
        pytest.skip("PgBouncer may end itself when a statement is cancelled (#801)")
    if notes_settings.is_sqlite and misuse is use_in_two_tasks:
        pytest.skip("aiosqlite may wait for ever if it is cancelled as it connects")
    refusals = (InvalidRequestError, DBAPIError, SnapshotNeededError, TimeoutError)
    for moment in range(10 if notes_settings.is_sqlite else 40):
        with contextlib.suppress(*refusals):
            async with getattr(database, kind)() as session:
                await misuse(session, moment / 4_000)
        assert await count_lasting_leaks(database) == 0, moment


async def test_a_cancelled_task_gives_the_connection_back(database: Database) -> None:
    with anyio.move_on_after(0.05):
        async with database.write() as session:
            session.add(Note(text="lost"))
            await session.flush()
            await anyio.sleep_forever()
    assert await count_leaks(database) == 0
    async with database.read() as reader:
        assert await count(reader) == 0


async def run_slowly(session: ReadSession, running: asyncio.Event) -> None:
    """Run a statement that takes far too long, and tell when it does."""
    connection = await (await session.connection()).get_raw_connection()
    driver: Any = connection.driver_connection
    begin = partial(asyncio.get_running_loop().call_soon_threadsafe, running.set)
    await driver.set_trace_callback(lambda _statement: begin())
    await session.execute(SLOW)


async def hold_the_lock(database: Database, running: asyncio.Event) -> None:
    async with database.write() as session:
        await session.set_timeouts(statement=20)
        session.add(Note(text="lost"))
        await session.flush()
        await run_slowly(session, running)


async def cancel_task(database: Database) -> None:
    running = asyncio.Event()
    task = asyncio.create_task(hold_the_lock(database, running))
    await running.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def cancel_group(database: Database) -> None:
    running = asyncio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(hold_the_lock, database, running)
        await running.wait()
        group.cancel_scope.cancel()


@pytest.mark.usefixtures("keep_garbage")
@pytest.mark.parametrize("cancel", [cancel_task, cancel_group])
async def test_a_cancelled_statement_ends_and_gives_the_lock_back(
    cancel: Callable[[Database], Awaitable[None]],
    database: Database,
    notes_settings: Settings,
) -> None:
    if not notes_settings.is_sqlite:
        pytest.skip("PostgreSQL locks rows, and its drivers cancel what runs there")
    tasks = len(asyncio.all_tasks())
    with anyio.fail_after(10):
        await cancel(database)
    async with database.write() as session:
        session.add(Note(text="kept"))
        await session.commit()
    assert await count_apart(database) == 1
    assert await count_leaks(database) == 0
    assert len(asyncio.all_tasks()) == tasks


async def test_who_is_cancelled_in_two_ways_gives_the_connection_back(
    database: Database,
    notes_settings: Settings,
) -> None:
    if not notes_settings.is_sqlite:
        pytest.skip("only SQLite's driver tells when a statement runs")
    running = asyncio.Event()
    scope = anyio.CancelScope()

    async def read() -> None:
        with scope:
            async with database.read() as session:
                await run_slowly(session, running)

    task = asyncio.create_task(read())
    await running.wait()
    scope.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert await count_leaks(database) == 0


{% endif %}
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
{% endblock %}
