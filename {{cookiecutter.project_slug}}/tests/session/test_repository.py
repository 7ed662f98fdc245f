{% extends "async.jinja" %}
{% block code %}
"""The generic repository, and savepoints."""

import pytest
{% if cookiecutter.io == 'async' %}
from sqlalchemy import func
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
{% else %}
from sqlalchemy import func
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError
{% endif %}
from sqlalchemy.orm import selectinload

from app.db.database import Database
from app.db.errors import BUSY, LazyLoadError, to_problem
from app.db.session import WriteSession
from tests.session.probe import Note, NoteReadRepository, NoteRepository
from tests.support import recorded_selects


async def test_add_returns_the_row_with_its_id(session: WriteSession) -> None:
    note = await NoteRepository(session).add(Note(text="new"))
    assert await NoteRepository(session).get(note.id) is note


async def test_get_returns_none_for_what_is_not_there(session: WriteSession) -> None:
    assert await NoteRepository(session).get(1_000_000) is None


async def test_list_filters_and_pages_by_id(session: WriteSession) -> None:
    notes = NoteRepository(session)
    for text in ("a1", "b1", "a2", "a3"):
        await notes.add(Note(text=text))
    page = await notes.list(Note.text.startswith("a"), limit=2, offset=1)
    assert [note.text for note in page] == ["a2", "a3"]


async def test_list_orders_by_what_it_is_told_and_then_by_id(
    session: WriteSession,
) -> None:
    notes = NoteRepository(session)
    for text in ("b1", "a1", "b2", "a2"):
        await notes.add(Note(text=text))
    by_letter = [func.substr(Note.text, 1, 1).desc()]
    page = await notes.list(order_by=by_letter, limit=2)
    assert [note.text for note in page] == ["b1", "b2"]
    page = await notes.list(order_by=by_letter, limit=2, offset=2)
    assert [note.text for note in page] == ["a1", "a2"]
    (first,) = await notes.list(order_by=[Note.parent_id, Note.text], limit=1)
    assert first.text == "a1"


async def test_update_sets_values(session: WriteSession) -> None:
    notes = NoteRepository(session)
    note = await notes.add(Note(text="old"))
    await notes.update(note, {"text": "new"})
    assert len(await notes.list(Note.text == "new", limit=2)) == 1


async def test_bulk_update_counts_its_rows(session: WriteSession) -> None:
    notes = NoteRepository(session)
    parent = await notes.add(Note(text="parent"))
    for text in ("a", "b"):
        await notes.add(Note(text=text))
    changed = await notes.bulk_update(Note.text != "parent", parent_id=parent.id)
    assert changed == 2
    assert len(await notes.list(Note.parent_id == parent.id, limit=10)) == 2


async def lock_apart(database: Database, id: int) -> None:
    async with database.write() as session:
        await session.set_timeouts(lock=0.05)
        await NoteRepository(session).lock(id)


async def test_a_locked_row_keeps_other_writers_waiting(database: Database) -> None:
    async with database.write() as session:
        note = await NoteRepository(session).add(Note(text="wanted"))
        await session.commit()
        assert await NoteRepository(session).lock(note.id) is note
        with pytest.raises(DBAPIError) as refused:
            await lock_apart(database, note.id)
    assert to_problem(refused.value) is BUSY


async def test_delete_removes_the_row(session: WriteSession) -> None:
    notes = NoteRepository(session)
    note = await notes.add(Note(text="gone"))
    await notes.delete(note)
    assert await notes.get(note.id) is None


async def test_get_or_create_creates_once(session: WriteSession) -> None:
    notes = NoteRepository(session)
    parent = await notes.add(Note(text="parent"))
    defaults = {"parent_id": parent.id}
    first, created = await notes.get_or_create(defaults, text="tag")
    assert first.parent_id == parent.id
    again, created_again = await notes.get_or_create(text="tag")
    assert (created, created_again) == (True, False)
    assert again is first


async def test_get_or_create_survives_a_race(session: WriteSession) -> None:
    await NoteRepository(session).add(Note(text="tag"))
    late = LateRepository(session)
    found, created = await late.get_or_create(text="tag")
    assert (found.text, created) == ("tag", False)
    await late.add(Note(text="the transaction goes on"))


async def test_get_or_create_hides_no_other_error(session: WriteSession) -> None:
    with pytest.raises(IntegrityError):
        await NoteRepository(session).get_or_create(text="forbidden")


class LateRepository(NoteRepository):
    """Looks too early: the row of another transaction is not there yet."""

    looked = False

    async def _find(self, key: dict[str, object]) -> Note | None:
        if not self.looked:
            self.looked = True
            return None
        return await super()._find(key)


class FamilyRepository(NoteRepository):
    """Reads notes with their parents."""

    loads = (selectinload(Note.parent),)


async def add_children(session: WriteSession, count: int) -> None:
    notes = NoteRepository(session)
    parent = await notes.add(Note(text="parent"))
    for number in range(count):
        await notes.add(Note(text=f"child {number}", parent_id=parent.id))
    session.expunge_all()


async def test_what_was_not_loaded_raises(session: WriteSession) -> None:
    await add_children(session, 1)
    (child,) = await NoteRepository(session).list(Note.text != "parent", limit=2)
    with pytest.raises(LazyLoadError, match=r"Note\.parent was not loaded"):
        str(child.parent)


async def test_what_was_not_loaded_raises_the_same_in_a_session_that_reads(
    database: Database,
) -> None:
    async with database.write() as session:
        await add_children(session, 1)
        await session.commit()
    async with database.read() as session:
        notes = NoteReadRepository(session)
        (child,) = await notes.list(Note.text != "parent", limit=2)
        with pytest.raises(LazyLoadError, match=r"Note\.parent was not loaded"):
            str(child.parent)


async def test_what_was_added_with_its_foreign_key_only_says_what_helps(
    session: WriteSession,
) -> None:
    notes = FamilyRepository(session)
    parent = await notes.add(Note(text="parent"))
    session.expunge(parent)
    child = await notes.add(Note(text="child", parent_id=parent.id))
    with pytest.raises(LazyLoadError, match=r"added.*whose `loads` name it"):
        str(child.parent)
    assert await notes.get(child.id) is child
    assert child.parent is not None
    assert child.parent.text == "parent"


async def test_many_rows_load_as_cheaply_as_one(
    session: WriteSession,
    database: Database,
) -> None:
    await add_children(session, 3)
    with recorded_selects(database) as selects:
        children = await FamilyRepository(session).list(Note.text != "parent", limit=9)
    assert [child.parent and child.parent.text for child in children] == ["parent"] * 3
    assert len(selects) == 2


async def test_get_loads_along(session: WriteSession) -> None:
    await add_children(session, 1)
    (child,) = await NoteRepository(session).list(Note.text != "parent", limit=2)
    session.expunge_all()
    found = await FamilyRepository(session).get(child.id)
    assert found is not None
    assert found.parent is not None


async def add_in_savepoint(session: WriteSession, *texts: str) -> None:
    async with session.begin_nested():
        for text in texts:
            await NoteRepository(session).add(Note(text=text))


async def test_a_savepoint_is_rolled_back_alone(session: WriteSession) -> None:
    notes = NoteRepository(session)
    await notes.add(Note(text="kept"))
    with pytest.raises(IntegrityError):
        await add_in_savepoint(session, "rolled back", "kept")
    await notes.add(Note(text="also kept"))
    stored = await notes.list(limit=10)
    assert [note.text for note in stored] == ["kept", "also kept"]


async def test_the_test_session_stores_nothing(
    connection: AsyncConnection,
    session: WriteSession,
) -> None:
    await NoteRepository(session).add(Note(text="not for long"))
    await session.commit()
    assert connection.in_transaction()


async def test_an_update_in_bulk_keeps_what_was_loaded(session: WriteSession) -> None:
    await add_children(session, 1)
    notes = FamilyRepository(session)
    (child,) = await notes.list(Note.text != "parent", limit=2)
    assert await notes.bulk_update(Note.id == child.id, text="new") == 1
    assert child.text == "new"
    assert child.parent is not None
    assert child.parent.text == "parent"


async def test_get_or_create_reads_what_belongs_to_the_row(
    session: WriteSession,
) -> None:
    parent = await NoteRepository(session).add(Note(text="parent"))
    notes = FamilyRepository(session)
    for is_new in (True, False):
        key = {"text": "child"}
        child, was_made = await notes.get_or_create({"parent_id": parent.id}, **key)
        assert was_made is is_new
        assert child.parent is parent
        session.expunge(child)


async def test_an_attribute_may_be_set_to_a_sql_expression(
    session: WriteSession,
) -> None:
    notes = NoteRepository(session)
    note = await notes.add(Note(text="note"))
    await notes.update(note, {"text": func.upper(Note.text)})
    assert note.text == "NOTE"


async def test_an_attribute_that_does_not_exist_is_not_set(
    session: WriteSession,
) -> None:
    notes = NoteRepository(session)
    note = await notes.add(Note(text="note"))
    with pytest.raises(AttributeError, match="Note has no attribute txt"):
        await notes.update(note, {"txt": "new"})
{% endblock %}
