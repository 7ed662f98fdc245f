{% extends "async.jinja" %}
{% block code %}
"""A state that was changed on a connection does not reach its next user."""

import logging
from typing import Any

import pytest
from sqlalchemy import text

from app.config import Settings
from app.db.database import Database
from app.db.session import ReadSession, WriteSession
from tests import support
from tests.session.probe import NoteIn, add, count_apart

only_postgresql = "SQLite has no such parameters"
CHANGES = {
    "TimeZone": "Asia/Tokyo",
    "DateStyle": "German",
    "default_transaction_read_only": "on",
    "search_path": "pg_catalog",
}


async def driver_of(session: ReadSession) -> Any:
    """Return the driver's own connection."""
    return await support.driver_of(await session.connection())


async def run(session: WriteSession, statement: str) -> None:
    connection = await session.connection()
    await connection.execute(text(statement))


@pytest.mark.parametrize("name", CHANGES)
async def test_a_parameter_that_was_set_does_not_stay(
    database: Database,
    notes_settings: Settings,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip(only_postgresql)
    if notes_settings.database_pooler == "transaction":
        pytest.skip("behind a pooler, SET changes a connection of somebody else")
    caplog.set_level(logging.WARNING, "app")
    async with database.write() as session:
        version = await session.scalar(text("SHOW server_version_num"))
        before = await session.scalar(text(f"SHOW {name}"))
        await run(session, f"SET {name} = '{CHANGES[name]}'")
        await session.commit()
    if name == "search_path" and int(str(version)) < 180_000:
        pytest.skip("PostgreSQL reports search_path since version 18")
    assert "connection changed by no request; replacing it" in caplog.text
    async with database.write() as session:
        assert await session.scalar(text(f"SHOW {name}")) == before


async def test_a_parameter_of_one_transaction_keeps_the_connection(
    database: Database,
    notes_settings: Settings,
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip(only_postgresql)
    drivers = []
    for _ in range(2):
        async with database.write() as session:
            await run(session, "SET LOCAL TimeZone = 'Asia/Tokyo'")
            drivers.append(await driver_of(session))
    assert drivers[0] is drivers[1]


@pytest.mark.parametrize("kind", ["write", "read", "snapshot"])
async def test_what_sessions_set_themselves_keeps_the_connection(
    database: Database,
    kind: str,
) -> None:
    drivers = []
    for _ in range(3):
        async with getattr(database, kind)() as session:
            await session.scalar(text("SELECT 1"))
            drivers.append(await driver_of(session))
        # Another kind of session, on the same connection.
        async with database.snapshot() as other, database.write(serializable=True):
            await other.scalar(text("SELECT 1"))
    assert drivers[0] is drivers[1] is drivers[2]


async def test_a_driver_connection_of_sqlite_that_was_changed_does_not_stay(
    database: Database,
    notes_settings: Settings,
) -> None:
    if not notes_settings.is_sqlite:
        pytest.skip("PostgreSQL's drivers have states of their own")
    async with database.write() as session:
        (await driver_of(session)).isolation_level = "EXCLUSIVE"
    async with database.write() as session:
        assert not (await driver_of(session)).isolation_level


{% if cookiecutter.io == 'async' %}
# What SQLAlchemy's own connection keeps, since asyncpg's has no names for it.
STATES = {"isolation_level": "serializable", "readonly": True, "deferrable": True}


async def holder_of(session: ReadSession) -> Any:
    """Return what has these attributes."""
    connection = await session.connection()
    return (await connection.get_raw_connection()).dbapi_connection


async def change(session: WriteSession) -> None:
    """Begin a transaction that SQLAlchemy does not know of, and so does not end."""
    await (await driver_of(session)).execute("BEGIN")


{% else %}
STATES = {"isolation_level": 4, "read_only": True, "deferrable": True}


def holder_of(session: ReadSession) -> Any:
    """Return what has these attributes: the driver's own connection."""
    return driver_of(session)


def change(session: WriteSession) -> None:
    """Let each statement be saved at once, from now on."""
    driver_of(session).autocommit = True


{% endif %}
async def test_a_driver_connection_that_was_changed_does_not_stay(
    database: Database,
    notes_settings: Settings,
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip("SQLAlchemy begins SQLite's transactions, whatever the driver does")
    if notes_settings.database_pooler == "transaction":
        pytest.skip("behind a pooler, a transaction has begun to set the timeouts")
    async with database.write() as session:
        await change(session)
    async with database.write() as session:
        await add(session, NoteIn())
        await session.rollback()
    assert await count_apart(database) == 0


@pytest.mark.parametrize("name", STATES)
async def test_what_was_set_for_all_transactions_does_not_stay(
    database: Database,
    notes_settings: Settings,
    name: str,
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip(only_postgresql)
    if notes_settings.database_pooler == "transaction":
        pytest.skip("behind a pooler, a transaction has begun to set the timeouts")
    async with database.write() as session:
        setattr(await holder_of(session), name, STATES[name])
    async with database.write() as session:
        assert getattr(await holder_of(session), name) != STATES[name]
{% endblock %}
