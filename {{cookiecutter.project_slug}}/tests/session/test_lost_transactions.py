{% extends "async.jinja" %}
{% block code %}
"""A commit that would save nothing raises, whatever ended the transaction."""

from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError, PendingRollbackError

from app.config import Settings
from app.db.database import Database
from app.db.session import WriteSession
from tests.session.probe import NoteIn, add, count_apart
from tests.support import driver_of

WORDS = ["COMMIT", "rollback", " Begin", "END", "abort", "START TRANSACTION"]


async def run_raw(session: WriteSession, statement: str) -> None:
    """Run a statement on the driver's own connection, past SQLAlchemy."""
    connection = await session.connection()
    driver = await driver_of(connection)
    await driver.execute(statement)


async def save_around(database: Database, *raw: str) -> None:
    """Save a note, and swallow the driver's errors of raw statements meanwhile."""
    async with database.write() as session:
        await add(session, NoteIn())
        for statement in raw:
            with suppress(Exception):
                await run_raw(session, statement)
        await session.commit()


async def test_a_commit_after_a_swallowed_driver_error_raises(
    database: Database,
    notes_settings: Settings,
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip("a raw statement that fails on SQLite ends no transaction")
    with pytest.raises(PendingRollbackError, match="roll back first"):
        await save_around(database, "SELECT no_such_column")
    assert await count_apart(database) == 0
    await save_around(database)
    assert await count_apart(database) == 1


async def test_a_commit_after_the_driver_ended_the_transaction_raises(
    database: Database,
) -> None:
    with pytest.raises(PendingRollbackError, match="has ended"):
        await save_around(database, "ROLLBACK")
    assert await count_apart(database) == 0
    await save_around(database)
    assert await count_apart(database) == 1


async def test_a_transaction_without_a_statement_may_be_committed(
    database: Database,
) -> None:
    await save_around(database)
    async with database.write() as session:
        await session.connection()
        await session.commit()
    assert await count_apart(database) == 1


async def test_rolling_back_to_a_raw_savepoint_clears_a_driver_error(
    database: Database,
) -> None:
    savepoint = ("SAVEPOINT one", "SELECT no_such_column", "ROLLBACK TO SAVEPOINT one")
    await save_around(database, *savepoint)
    assert await count_apart(database) == 1


async def end_by(database: Database, statement: str) -> None:
    async with database.write() as session:
        await add(session, NoteIn())
        connection = await session.connection()
        await connection.execute(text(statement))


@pytest.mark.parametrize("word", WORDS)
async def test_a_statement_that_ends_the_transaction_is_refused(
    database: Database,
    word: str,
) -> None:
    with pytest.raises(InvalidRequestError, match=r"call the session's commit\(\)"):
        await end_by(database, word)
    assert await count_apart(database) == 0


async def test_so_is_one_that_would_end_a_snapshot(database: Database) -> None:
    async with database.snapshot() as session:
        connection = await session.connection()
        with pytest.raises(InvalidRequestError, match="COMMIT is not allowed"):
            await connection.execute(text("COMMIT"))


async def test_a_savepoint_may_be_written_as_a_statement(database: Database) -> None:
    async with database.write() as session:
        await add(session, NoteIn())
        connection = await session.connection()
        await connection.execute(text("SAVEPOINT one"))
        await add(session, NoteIn(text="undone"))
        await connection.execute(text("ROLLBACK TO SAVEPOINT one"))
        await session.commit()
    assert await count_apart(database) == 1


async def test_in_autocommit_statements_may_say_begin_and_commit(
    database: Database,
) -> None:
    engine = database.write_engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in ("BEGIN", "SELECT 1", "COMMIT"):
            await connection.execute(text(statement))
        await connection.commit()
{% endblock %}
