{% extends "async.jinja" %}
{% block code %}
"""Engines and pools follow the settings."""

import socket
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import event, exc, func, make_url, select, text

from app.config import PROJECT, ROOT, Settings
from app.db import pool
from app.db.database import Database
from app.db.driver import POSTGRESQL_DRIVER
from app.db.engine import make_engine
from app.db.errors import (
    FAILED,
    UNAVAILABLE,
    DatabaseUnavailableError,
    is_retryable,
    to_problem,
)
from tests.session.probe import Note, NoteIn, add, count
from tests.support import POOLER, driver_of, execute, make_settings, tcp_options

only_postgresql = "SQLite has no server, and so nothing of this"
READ_ONLY = func.set_config("transaction_read_only", "on", True)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", POSTGRESQL_DRIVER])
def test_every_spelling_of_postgresql_gets_our_driver(scheme: str) -> None:
    engine = make_engine(make_settings(f"{scheme}://user:secret@host/name"))
    assert engine.url.drivername == POSTGRESQL_DRIVER


async def test_urls_are_taken_as_hosts_hand_them_out(notes_settings: Settings) -> None:
    if notes_settings.is_sqlite:
        pytest.skip(only_postgresql)
    query = {"sslmode": "prefer", "channel_binding": "prefer", "connect_timeout": "9"}
    url = make_url(notes_settings.database_url.get_secret_value())
    url = url.set(drivername="postgres", query=query)
    await execute(make_settings(url.render_as_string(hide_password=False)), "SELECT 1")


def test_what_only_reads_goes_to_the_replica() -> None:
    settings = make_settings(
        "postgresql://user@primary/name",
        database_replica_url="postgresql://user@replica/name",
    )
    database = Database(settings)
    assert database.write_engine.url.host == "primary"
    assert database.read_engine.url.host == "replica"
    # Without the primary, nothing could be saved.
    assert database.readiness_engine.url.host == "primary"


def test_importing_the_app_connects_to_nothing() -> None:
    script = (
        "import socket, sqlite3\n"
        "def refuse(*_): raise SystemExit('connected')\n"
        "socket.socket.connect = sqlite3.connect = refuse\n"
        "import app.main\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_the_pools_have_the_size_that_is_set() -> None:
    settings = make_settings(
        "sqlite:///test.db", database_pool_size=3, database_max_overflow=2
    )
    database = Database(settings)
    for engine in (database.write_engine, database.read_engine):
        queue: Any = engine.pool
        assert (queue.size(), queue._max_overflow) == (3, 2)
    # Readiness is asked for one connection at a time, and never long.
    queue = database.readiness_engine.pool
    assert (queue.size(), queue._max_overflow, queue._timeout) == (1, 0, 2)


async def test_a_connection_is_used_again(database: Database) -> None:
    for _ in range(5):
        async with database.write() as session:
            await session.get(Note, 1)
    queue: Any = database.write_engine.pool
    assert queue.checkedin() == 1


@pytest.mark.parametrize(("age", "is_replaced"), [(1e-9, 1), (1_800, 0), (0, 0)])
async def test_an_old_connection_is_replaced(
    notes_settings: Settings,
    age: float,
    is_replaced: bool,
) -> None:
    made: list[object] = []
    recycling = notes_settings.model_copy(update={"database_pool_recycle": age})
    async with Database(recycling) as database:
        engine = database.read_engine
        event.listen(engine.sync_engine, "connect", lambda *new: made.append(new))
        for _ in range(2):
            async with engine.connect() as connection:
                await connection.scalar(text("SELECT 1"))
    assert (len(made) > 1) == is_replaced


@pytest.mark.parametrize("echo", [True, False])
async def test_statements_are_logged_with_their_values_on_request(
    notes_settings: Settings,
    caplog: pytest.LogCaptureFixture,
    echo: bool,
) -> None:
    settings = notes_settings.model_copy(update={"database_echo": echo})
    async with Database(settings) as database, database.read() as session:
        await session.scalar(text("SELECT :value"), {"value": "the value"})
    assert ("the value" in caplog.text) is echo


async def test_the_pool_itself_keeps_nobody_waiting_for_long(
    notes_settings: Settings,
) -> None:
    short = {"database_max_overflow": 0, "database_pool_timeout": 0.5}
    database = Database(notes_settings.model_copy(update=short))
    held = await database.read_engine.connect()
    with pytest.raises(exc.TimeoutError):
        await database.read_engine.connect()
    await held.close()
    await database.dispose()


@pytest.mark.parametrize("pooler", sorted({POOLER, "transaction"}))
async def test_timeouts_hold_in_every_session(
    notes_settings: Settings,
    pooler: str,
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip(only_postgresql)
    settings = notes_settings.model_copy(update={"database_pooler": pooler})
    database = Database(settings)
    for kind in (database.write, database.read, database.snapshot):
        for name, value in {
            "statement_timeout": "1s",
            "lock_timeout": "300ms",
            "idle_in_transaction_session_timeout": "1min",
            "application_name": PROJECT["name"],
            "TimeZone": "UTC",
        }.items():
            async with kind() as session:
                assert await session.scalar(text(f"SHOW {name}")) == value
    await database.dispose()


async def test_readiness_is_known_soon(database: Database) -> None:
    engine = database.readiness_engine
    if engine.dialect.name != "postgresql":
        pytest.skip(only_postgresql)
    for name, value in {"statement_timeout": "2s", "lock_timeout": "1s"}.items():
        async with engine.connect() as connection:
            assert await connection.scalar(text(f"SHOW {name}")) == value


async def test_a_pooled_connection_keeps_no_timeouts(notes_settings: Settings) -> None:
    if notes_settings.is_sqlite:
        pytest.skip(only_postgresql)
    settings = notes_settings.model_copy(update={"database_pooler": "transaction"})
    database = Database(settings)
    async with database.write() as session:
        await session.scalar(text("SELECT 1"))
    autocommit = database.write_engine.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        assert await connection.scalar(text("SHOW statement_timeout")) == "0"
    await database.dispose()


async def test_a_pooled_read_session_only_reads(notes_settings: Settings) -> None:
    if notes_settings.is_sqlite:
        pytest.skip(only_postgresql)
    settings = notes_settings.model_copy(update={"database_pooler": "transaction"})
    database = Database(settings)
    for kind in (database.read, database.snapshot):
        async with kind() as session:
            assert await session.scalar(text("SHOW transaction_read_only")) == "on"
    async with database.write() as writer:
        assert await writer.scalar(text("SHOW transaction_read_only")) == "off"
    await database.dispose()


async def sent_to(
    pooler: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    read_only: bool,
) -> dict[str, Any]:
    """Return what a driver gets in order to connect."""
    nowhere = "postgresql://somebody@127.0.0.1:1/nothing"
    settings = make_settings(nowhere, database_pooler=pooler)
    engine = make_engine(settings, read_only=read_only)
    sent: list[dict[str, Any]] = []

    def refuse(*_: object, **options: Any) -> None:
        sent.append(options)
        raise ConnectionRefusedError

    monkeypatch.setattr(engine.dialect, "connect", refuse)
    with pytest.raises(DatabaseUnavailableError):
        await engine.connect()
    return sent[0]


@pytest.mark.parametrize("read_only", [True, False])
async def test_a_pooler_gets_nothing_that_it_refuses(
    monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    options = await sent_to("transaction", monkeypatch, read_only=read_only)
    # Parameters of the session, and statements that live on one server connection.
{% if cookiecutter.io == 'async' %}
    assert options["server_settings"] == {}
    assert options["statement_cache_size"] == 0
    assert options["prepared_statement_cache_size"] == 0
{% else %}
    assert options["options"] == ""
    assert options["prepare_threshold"] is None
{% endif %}


async def test_statements_are_prepared_where_no_pooler_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = await sent_to("none", monkeypatch, read_only=False)
    off = {"statement_cache_size", "prepared_statement_cache_size", "prepare_threshold"}
    assert not off & set(options)


@pytest.mark.parametrize("is_noticed", [True, False])
async def test_a_killed_connection_fails_nobody(
    database: Database,
    notes_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    is_noticed: bool,
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip(only_postgresql)
    if not is_noticed:
        monkeypatch.setattr(pool, "is_closed", lambda _: False)
        monkeypatch.setattr(pool, "PING_AFTER", -1)
    async with database.write() as killer:
        # It begins first: a pooler gives the other another connection.
        await killer.scalar(text("SELECT 1"))
        async with database.read() as session:
            pid = await session.scalar(text("SELECT pg_backend_pid()"))
        await killer.scalar(text(f"SELECT pg_terminate_backend({pid}, 5000)"))
    async with database.read() as session:
        assert await count(session) == 0


async def test_all_connections_are_replaced_when_one_is_to_a_standby(
    database: Database, notes_settings: Settings
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip(only_postgresql)
    async with database.write() as session, database.write() as other:
        old = [await driver_of(await each.connection()) for each in (session, other)]
        # This is how a standby answers whatever would write.
        await session.scalar(select(READ_ONLY))
        with pytest.raises(exc.DBAPIError) as raised:
            await add(session, NoteIn())
        assert to_problem(raised.value) is UNAVAILABLE
        assert is_retryable(raised.value)
        await session.rollback()
    async with database.write() as session, database.write() as other:
        new = [await driver_of(await each.connection()) for each in (session, other)]
        await add(session, NoteIn())
        await session.commit()
    assert not set(map(id, old)) & set(map(id, new))


async def test_a_write_in_a_session_that_only_reads_stays_a_bug(
    database: Database, notes_settings: Settings
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip(only_postgresql)
    async with database.snapshot() as session:
        with pytest.raises(exc.DBAPIError) as raised:
            await session.scalar(text("DELETE FROM test_notes RETURNING id"))
        assert to_problem(raised.value) is FAILED


@pytest.mark.skipif(sys.platform != "linux", reason="other systems lack one of these")
async def test_a_silent_server_is_given_up_in_15_seconds(
    database: Database, notes_settings: Settings
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip(only_postgresql)
    async with database.write() as session:
        driver = await driver_of(await session.connection())
    names = "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"
    options = [getattr(socket, name) for name in names]
    assert tcp_options(driver, *options) == [5, 5, 2, 15_000]


async def test_a_connection_that_was_closed_in_the_pool_is_replaced(
    database: Database,
    notes_settings: Settings,
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip(only_postgresql)
    async with database.read() as session:
        driver = await driver_of(await session.connection())
    await driver.close()
    async with database.read() as session:
        assert await count(session) == 0


async def test_a_connection_that_is_killed_again_and_again_is_unavailable(
    database: Database,
    notes_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip(only_postgresql)

    def fail(*_: object) -> None:
        raise ConnectionResetError

    async with database.read() as session:
        assert await count(session) == 0
    monkeypatch.setattr(pool, "is_closed", lambda _: True)
    with monkeypatch.context() as context:
        context.setattr(database.read_engine.dialect, "do_ping", fail)
        session = database.read()
        with pytest.raises(DatabaseUnavailableError):
            await count(session)
        await session.close()
    async with database.read() as session:
        assert await count(session) == 0
{% endblock %}
