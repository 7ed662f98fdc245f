{% extends "async.jinja" %}
{% block code %}
"""Outside requests, context managers guarantee the same."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InvalidRequestError

from app.config import Settings
from app.db.database import Database
from app.db.errors import CommitOutcomeUnknownError, ForgottenCommitError
from app.transaction import transaction
from tests.session.probe import NoteIn, add, count, count_apart, save, unit
from tests.support import count_leaks, execute


async def test_a_database_closes_its_connections_at_its_end(
    notes_settings: Settings,
) -> None:
    async with Database(notes_settings) as database:
        async with database.read() as session:
            await count(session)
        pool = database.read_engine.pool
        assert database.gauges()["read"]["checked_in"] == 1
    assert pool.status().startswith("Pool size: 1  Connections in pool: 0")


async def save_and_fail(database: Database) -> None:
    async with transaction(database) as db, unit(db) as session:
        await add(session, NoteIn())
        raise RuntimeError("a bug")


async def test_a_transaction_saves_nothing_when_its_block_fails(
    database: Database,
) -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        await save_and_fail(database)
    assert await count_apart(database) == 0


async def test_a_transaction_saves_as_services_do(database: Database) -> None:
    async with transaction(database) as db:
        await save(db, NoteIn())
    assert await count_apart(database) == 1


async def test_a_session_outside_its_block_takes_no_connection(
    database: Database,
) -> None:
    with pytest.raises(InvalidRequestError, match="the session is not open"):
        await count(database.snapshot())
    assert await count_leaks(database) == 0


async def leave_a_session_undecided(database: Database) -> None:
    async with database.write() as session:
        await add(session, NoteIn())


async def test_a_session_of_the_database_commits_nothing_by_itself(
    database: Database,
) -> None:
    with pytest.raises(ForgottenCommitError):
        await leave_a_session_undecided(database)
    assert await count_apart(database) == 0


async def lose_the_connection(database: Database, settings: Settings) -> None:
    async with database.write_engine.connect() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
        await execute(settings, f"SELECT pg_terminate_backend({pid}, 5000)")
        await connection.commit()


async def test_a_commit_of_unknown_outcome_raises(
    database: Database,
    notes_settings: Settings,
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip("SQLite has no connection to lose")
    with pytest.raises(CommitOutcomeUnknownError):
        await lose_the_connection(database, notes_settings)


async def test_what_is_lost_after_a_commit_is_known(
    database: Database,
    notes_settings: Settings,
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip("SQLite has no connection to lose")
    async with database.write_engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await connection.commit()
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
        await execute(notes_settings, f"SELECT pg_terminate_backend({pid}, 5000)")
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT 1"))
{% endblock %}
