{% extends "async.jinja" %}
{% block code %}
"""What counts as a change that is neither committed nor rolled back."""

from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Executable, delete, insert, select, text, update

from app.db.database import Database
from app.db.errors import ForgottenCommitError, SnapshotNeededError
from app.db.session import ReadSession, WriteSession
from tests.session.probe import Note, NoteReadRepository, NoteRepository, count


async def add(session: WriteSession, content: str) -> Note:
    note = Note(text=content)
    session.add(note)
    await session.flush()
    return note


async def test_adding_counts_until_the_commit(session: WriteSession) -> None:
    session.add(Note(text="new"))
    assert session.has_changes
    await session.flush()
    assert session.has_changes
    await session.commit()
    assert not session.has_changes


async def test_adding_counts_until_the_rollback(session: WriteSession) -> None:
    await add(session, "new")
    await session.rollback()
    assert not session.has_changes


async def test_changing_counts_even_if_it_was_not_sent(session: WriteSession) -> None:
    note = await add(session, "old")
    await session.commit()
    note.text = "old"
    assert not session.has_changes, "nothing is different"
    note.text = "new"
    assert session.has_changes


async def test_deleting_counts_even_if_it_was_not_sent(session: WriteSession) -> None:
    note = await add(session, "old")
    await session.commit()
    await session.delete(note)
    assert session.has_changes


async def test_a_bulk_update_counts_and_reading_does_not(session: WriteSession) -> None:
    await add(session, "old")
    await session.commit()
    await count(session)
    assert not session.has_changes
    await NoteRepository(session).bulk_update(text="new")
    assert session.has_changes


async def test_a_bulk_update_of_no_row_is_no_change(session: WriteSession) -> None:
    assert await NoteRepository(session).bulk_update(text="new") == 0
    assert not session.has_changes


BULK = {
    "insert": insert(Note).values(text="new").returning(Note.id),
    "delete": delete(Note).returning(Note.id),
    "update": update(Note).values(text="new").returning(Note.id),
}


@pytest.mark.parametrize("statement", BULK.values(), ids=BULK)
async def test_a_statement_in_bulk_counts(
    session: WriteSession, statement: Executable
) -> None:
    await add(session, "old")
    await session.commit()
    await session.scalar(statement)
    assert session.has_changes


async def test_what_is_deleted_in_bulk_leaves_the_session(
    session: WriteSession,
) -> None:
    note = await add(session, "old")
    await session.commit()
    await session.scalar(BULK["delete"])
    assert note not in session


@pytest.mark.parametrize("statement", BULK.values(), ids=BULK)
async def test_what_a_cte_changes_counts(
    session: WriteSession,
    statement: Any,
) -> None:
    if session.get_bind().dialect.name == "sqlite":
        pytest.skip("SQLite has no WITH whose parts change something")
    await add(session, "old")
    await session.commit()
    changed = statement.cte()
    # Whatever is read of them: no row here.
    await session.scalar(select(changed.c.id).where(changed.c.id < 0))
    assert session.has_changes


async def execute(session: WriteSession, sql: str) -> None:
    connection = await session.connection()
    await connection.execute(text(sql))


READS = [
    "SELECT 1",
    "-- UPDATE\nSELECT 1",
    "SELECT 'insert into'",
    "WITH updated AS (SELECT 1 AS updated) SELECT updated FROM updated",
    "UPDATE test_notes SET text = 'new' WHERE id < 0",
]


@pytest.mark.parametrize("sql", READS)
async def test_textual_sql_does_not_count_if_it_changes_nothing(
    session: WriteSession, sql: str
) -> None:
    await add(session, "old")
    await session.commit()
    await execute(session, sql)
    assert not session.has_changes


WRITES = [
    "UPDATE test_notes SET text = 'new'",
    "insert into test_notes (text) values ('new')",
    "-- Why, and -- for what\n/* DELETE;\n-- */ UPDATE test_notes SET text = 'new'",
    "WITH other AS (SELECT 'new' AS new)\nUPDATE test_notes SET text = 'new'",
    "WITH other AS (SELECT 1) /* all */ DELETE FROM test_notes",
]
WRITES_OF_POSTGRESQL = [
    "DO $$ BEGIN UPDATE test_notes SET text = 'new'; END $$",
    "WITH gone AS (-- All.\nDELETE FROM test_notes RETURNING id) SELECT id FROM gone",
]


@pytest.mark.parametrize("sql", [*WRITES, *WRITES_OF_POSTGRESQL])
async def test_textual_sql_counts_if_it_writes(session: WriteSession, sql: str) -> None:
    if sql in WRITES_OF_POSTGRESQL and session.get_bind().dialect.name == "sqlite":
        pytest.skip("SQLite has no such statement")
    await add(session, "old")
    await session.commit()
    await execute(session, sql)
    assert session.has_changes


async def test_what_the_sessions_connection_runs_counts(
    session: WriteSession,
) -> None:
    connection = await session.connection()
    await connection.execute(insert(Note), [{"text": "a"}, {"text": "b"}])
    assert session.has_changes
    await session.rollback()
    assert not session.has_changes


async def test_a_savepoint_rolls_back_only_its_own_changes(
    session: WriteSession,
) -> None:
    async with session.begin_nested() as savepoint:
        await add(session, "rolled back")
        await savepoint.rollback()
    assert not session.has_changes
    await add(session, "kept")
    async with session.begin_nested() as savepoint:
        await add(session, "rolled back")
        await savepoint.rollback()
    assert session.has_changes


async def test_releasing_a_savepoint_is_no_commit(session: WriteSession) -> None:
    async with session.begin_nested():
        await add(session, "new")
    assert session.has_changes


async def test_a_savepoint_rolls_back_those_inside_it(session: WriteSession) -> None:
    async with session.begin_nested() as outer:
        async with session.begin_nested():
            await add(session, "rolled back")
        await outer.rollback()
    assert not session.has_changes


async def change_what_is_read(session: ReadSession) -> None:
    async with session:
        notes = NoteReadRepository(session)
        (note,) = await notes.list(limit=1)
        note.text = "new"
        # Nothing is sent, and so no error of the database hides what is wrong.
        with suppress(SnapshotNeededError):
            await notes.list(limit=1)


@pytest.mark.parametrize("kind", ["read", "snapshot"])
async def test_a_change_in_a_session_that_only_reads_is_an_error(
    database: Database, kind: str
) -> None:
    async with database.write() as session:
        await add(session, "old")
        await session.commit()
    with pytest.raises(ForgottenCommitError, match="only reads: take WriteDep"):
        await change_what_is_read(getattr(database, kind)())
{% endblock %}
