{% extends "async.jinja" %}
{% block code %}
"""A compatible migration fails no session while the app runs."""

{% if cookiecutter.io == 'async' %}
from collections.abc import AsyncIterator, Callable
{% else %}
from collections.abc import Callable, Iterator
{% endif %}
from typing import Any

import pytest
{% if cookiecutter.io == 'async' %}
from sqlalchemy import Integer, func, select, update
{% else %}
from sqlalchemy import Integer, event, func, select, update
{% endif %}
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.config import Settings
from app.db.database import Database
{% if cookiecutter.io == 'async' %}
from app.db.errors import BUSY, SchemaChangedError, is_retryable, to_problem
{% endif %}
from app.db.repository import ReadRepository, Repository
from tests import support
from tests.session import probe as notes

WIDER = "ALTER id TYPE bigint, ALTER amount TYPE bigint"
CHANGES = [WIDER, "ADD COLUMN another integer", "DROP COLUMN unused"]


class Base(DeclarativeBase):
    """The base of this model alone: its table changes."""


class Thing(Base):
    """A row of the table that changes; the model does not know all of its columns."""

    __tablename__ = "test_things"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    amount: Mapped[int]


class ThingRepository(Repository[Thing]):
    """Reads and writes things."""

    model = Thing


class ThingReadRepository(ReadRepository[Thing]):
    """Reads things."""

    model = Thing


@pytest.fixture
async def things(notes_settings: Settings) -> AsyncIterator[None]:
    """Create a table with one row and a column that the model does not know."""
    await support.create_table(notes_settings, Thing.metadata.tables["test_things"])
    await support.execute(
        notes_settings,
        "INSERT INTO test_things (amount) VALUES (1)",
        "ALTER TABLE test_things ADD COLUMN unused integer",
    )
    yield
    await support.execute(notes_settings, "DROP TABLE test_things")


async def read(database: Database) -> None:
    async with database.read() as session:
        assert await session.scalar(select(func.max(Thing.id))) is not None


async def read_object(database: Database) -> None:
    async with database.read() as session:
        assert await session.get(Thing, 1) is not None


async def take_snapshot(database: Database) -> None:
    async with database.snapshot() as session:
        for _ in range(2):
            assert await session.get(Thing, 1, populate_existing=True) is not None


async def stream(database: Database) -> None:
    async with (
        database.snapshot() as session,
        ThingReadRepository(session).batches(size=1) as batches,
    ):
        async for (thing,) in batches:
            assert thing.amount > 0


async def add(database: Database) -> None:
    async with database.write() as session:
        session.add(Thing(amount=1))
        await session.commit()


async def read_and_add(database: Database) -> None:
    async with database.write() as session:
        await session.get(notes.Note, 1)
        session.add(Thing(amount=1))
        await session.commit()


async def lock_and_update(database: Database) -> None:
    async with database.write() as session:
        await session.get(notes.Note, 1)
        things = ThingRepository(session)
        thing = await things.lock(1)
        assert thing is not None
        await things.update(thing, {"amount": thing.amount + 1})
        await session.commit()


async def add_serializably(database: Database) -> None:
    async with database.write(serializable=True) as session:
        session.add(Thing(amount=1))
        await session.commit()


USES = [
    read,
    read_object,
    take_snapshot,
    stream,
    add,
    read_and_add,
    lock_and_update,
    add_serializably,
]


async def change(
    database: Database,
    settings: Settings,
    use: Callable[[Database], Any],
    change: str,
) -> None:
    """Change the table between uses; drivers prepare statements that are frequent."""
    for _ in range(7):
        await use(database)
    await support.execute(settings, f"ALTER TABLE test_things {change}")
    for _ in range(2):
        await use(database)


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize("alteration", CHANGES)
@pytest.mark.parametrize("use", USES)
async def test_a_changed_table_fails_no_session(
    database: Database,
    notes_settings: Settings,
    use: Callable[[Database], Any],
    alteration: str,
) -> None:
    if notes_settings.is_sqlite and "TYPE" in alteration:
        pytest.skip("SQLite changes no types")
    await change(database, notes_settings, use, alteration)


async def update_and_add(database: Database) -> None:
    async with database.write() as session:
        connection = await session.connection()
        await connection.execute(update(notes.Note).values(text="changed"))
        session.add(Thing(amount=1))
        await session.commit()


{% if cookiecutter.io == 'async' %}
async def copy_and_add(database: Database) -> None:
    async with database.write() as session:
        await session.get(notes.Note, 1)
        connection = await session.connection()
        driver = await support.driver_of(connection)
        number = await notes.count_apart(database) + 1
        note = [(number, f"copy {number}")]
        columns = ["id", "text"]
        await driver.copy_records_to_table("test_notes", records=note, columns=columns)
        session.add(Thing(amount=1))
        await session.commit()


async def take_snapshot_of_both(database: Database) -> None:
    async with database.snapshot() as session:
        await session.get(notes.Note, 1)
        await session.get(Thing, 1)


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize("use", [update_and_add, copy_and_add, take_snapshot_of_both])
async def test_a_transaction_that_cannot_be_repeated_is_refused(
    database: Database,
    notes_settings: Settings,
    use: Callable[[Database], Any],
) -> None:
    if notes_settings.is_sqlite or notes_settings.database_pooler == "transaction":
        pytest.skip("nothing stays prepared")
    with pytest.raises(SchemaChangedError, match="a migration") as failure:
        await change(database, notes_settings, use, WIDER)
    assert to_problem(failure.value) is BUSY
    assert is_retryable(failure.value)
    await use(database)
{% else %}
@pytest.mark.usefixtures("things")
async def test_a_transaction_that_has_written_goes_on(
    database: Database,
    notes_settings: Settings,
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip("SQLite changes no types")
    await change(database, notes_settings, update_and_add, WIDER)


@pytest.mark.usefixtures("things")
async def test_a_connection_with_outdated_statements_is_replaced(
    database: Database,
    notes_settings: Settings,
) -> None:
    if notes_settings.is_sqlite or notes_settings.database_pooler == "transaction":
        pytest.skip("nothing stays prepared")
    made: list[object] = []
    event.listen(database.read_engine, "connect", lambda *new: made.append(new))
    await change(database, notes_settings, read, WIDER)
    assert len(made) == 2
{% endif %}
{% endblock %}
