{% extends "async.jinja" %}
{% block code %}
"""What counts as a change that is neither committed nor rolled back."""

import pytest
from sqlalchemy import Executable, delete, insert, text

from app.db.session import WriteSession
from tests.session.probe import Note, NoteRepository, count


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
    await count(session)
    assert not session.has_changes
    await NoteRepository(session).bulk_update(text="new")
    assert session.has_changes


BULK = {
    "insert": insert(Note).values(text="new").returning(Note.id),
    "delete": delete(Note).returning(Note.id),
}


@pytest.mark.parametrize("statement", BULK.values(), ids=BULK)
async def test_a_bulk_insert_or_delete_counts(
    session: WriteSession, statement: Executable
) -> None:
    await session.scalar(statement)
    assert session.has_changes


async def test_textual_sql_counts_if_it_writes(session: WriteSession) -> None:
    await session.scalar(text("SELECT 1"))
    assert not session.has_changes
    await session.scalar(text("UPDATE notes SET text = 'new' RETURNING id"))
    assert session.has_changes


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
{% endblock %}
