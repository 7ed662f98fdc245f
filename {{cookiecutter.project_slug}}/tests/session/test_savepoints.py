{% extends "async.jinja" %}
{% block code %}
"""A savepoint that fails raises its own error, and leaves every object readable."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import delete, insert, text
from sqlalchemy.exc import IntegrityError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.orm import selectinload

from app.config import Settings
from app.db.database import Database
from app.db.errors import is_connection_lost
from app.db.session import WriteSession
from tests.session.probe import Note, NoteRepository

PID = text("SELECT pg_backend_pid()")


class FamilyRepository(NoteRepository):
    """Reads notes with their parents."""

    loads = (selectinload(Note.parent),)


async def save_family(database: Database) -> int:
    """Save a note with a parent in another session; return its id."""
    async with database.write_engine.begin() as connection:
        parent = insert(Note).values(text="parent").returning(Note.id)
        parent_id = await connection.scalar(parent)
        child = insert(Note).values(text="child", parent_id=parent_id)
        child_id: int | None = await connection.scalar(child.returning(Note.id))
    assert child_id is not None
    return child_id


async def take(session: WriteSession, note: Note) -> None:
    """Break a constraint by a flush."""
    await FamilyRepository(session).update(note, {"text": "parent"})


async def take_in_bulk(session: WriteSession, note: Note) -> None:
    """Break a constraint by an UPDATE, after another has succeeded."""
    notes = FamilyRepository(session)
    await notes.bulk_update(Note.id == note.id, text="other")
    await notes.bulk_update(Note.id == note.id, text="forbidden")


async def in_savepoint(
    session: WriteSession,
    change: Callable[..., Any],
    note: Note,
) -> None:
    async with session.begin_nested():
        await change(session, note)


@pytest.mark.parametrize("change", [take, take_in_bulk])
async def test_what_was_loaded_with_an_object_stays_loaded(
    database: Database, change: Callable[..., Any]
) -> None:
    child_id = await save_family(database)
    async with database.write() as session:
        (child,) = await FamilyRepository(session).list(Note.id == child_id, limit=1)
        with pytest.raises(IntegrityError):
            await in_savepoint(session, change, child)
        assert child.text == "child"
        assert child.parent is not None
        assert child.parent.text == "parent"


async def test_what_was_appended_in_the_savepoint_is_gone(database: Database) -> None:
    child_id = await save_family(database)
    async with database.write() as session:
        notes = FamilyRepository(session)
        child = await notes.get(child_id)
        assert child is not None

        async def move(session: WriteSession, child: Note) -> None:
            child.parent = await notes.add(Note(text="new parent"))
            await take(session, child)

        with pytest.raises(IntegrityError):
            await in_savepoint(session, move, child)
        assert child.parent is not None
        assert child.parent.text == "parent"


@pytest.mark.parametrize("change", [take, take_in_bulk])
async def test_an_object_whose_row_is_gone_does_not_hide_the_error(
    database: Database, change: Callable[..., Any]
) -> None:
    child_id = await save_family(database)
    async with database.write() as session:
        child = await FamilyRepository(session).get(child_id)
        other = await NoteRepository(session).add(Note(text="other note"))
        connection = await session.connection()
        await connection.execute(delete(Note).where(Note.id == other.id))
        assert child is not None
        with pytest.raises(IntegrityError):
            await in_savepoint(session, change, child)
        assert (child.text, other.text) == ("child", "other note")
        await session.rollback()


async def kill(database: Database, session: WriteSession) -> None:
    """End the session's connection from another one."""
    pid = await session.scalar(PID)
    async with database.write_engine.connect() as connection:
        await connection.execute(text(f"SELECT pg_terminate_backend({pid}, 5000)"))


async def test_a_connection_that_is_lost_in_a_savepoint_is_told_as_such(
    database: Database, notes_settings: Settings
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip("SQLite has no connection to lose")
    child_id = await save_family(database)

    async def lose(session: WriteSession, child: Note) -> None:
        await FamilyRepository(session).update(child, {"text": "changed"})
        await kill(database, session)
        await FamilyRepository(session).get(child_id)

    async with database.write() as session:
        child = await FamilyRepository(session).get(child_id)
        assert child is not None
        with pytest.raises(SQLAlchemyError) as error:
            await in_savepoint(session, lose, child)
        await session.rollback()
    assert is_connection_lost(error.value)


async def test_a_rollback_whose_connection_is_lost_forgets_the_changes(
    database: Database, notes_settings: Settings
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip("SQLite has no connection to lose")
    async with database.write() as session:
        await NoteRepository(session).add(Note(text="note"))
        await kill(database, session)
        await session.rollback()
        assert not session.has_changes


async def test_a_later_savepoint_does_not_heal_an_earlier_error(
    database: Database, notes_settings: Settings
) -> None:
    if not notes_settings.is_sqlite:
        pytest.skip("PostgreSQL refuses the savepoint")
    async with database.write() as session:
        await NoteRepository(session).add(Note(text="half"))
        connection = await session.connection()
        with pytest.raises(IntegrityError):
            await connection.execute(insert(Note).values(text="half"))
        savepoint = await session.begin_nested()
        await session.scalar(text("SELECT 1"))
        await savepoint.rollback()
        with pytest.raises(PendingRollbackError):
            await session.commit()
        await session.rollback()
{% endblock %}
