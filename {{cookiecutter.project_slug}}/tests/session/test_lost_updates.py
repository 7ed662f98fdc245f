{% extends "async.jinja" %}
{% block code %}
"""No update is lost: what is locked, or changed in bulk, shows what is stored now."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends
from sqlalchemy import ColumnElement, func, insert, select, true, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column, selectinload
from starlette.testclient import TestClient

from app.config import Settings
from app.db.database import Database
from app.db.repository import Repository
from app.db.session import WriteSession
from app.dependencies import WriteDep
from app.routing import Router
from tests.session.conftest import serve_routers
from tests.session.probe import Base, Note, NoteRepository, session_of, unit
from tests.session.test_admission import database_of
from tests.support import at_once, call, count_leaks, create_table, empty_tables, run

router = Router(prefix="/counters")


class Counter(Base):
    """A number that many transactions change at once."""

    __tablename__ = "test_counters"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    value: Mapped[int]


class CounterRepository(Repository[Counter]):
    """Reads and writes counters."""

    model = Counter


COUNTERS = Base.metadata.tables["test_counters"]


async def find(session: WriteSession, name: str) -> Counter:
    """Return the counter with this name; its id is not known yet."""
    counter = await session.scalar(select(Counter).where(Counter.name == name))
    assert counter is not None
    return counter


async def get_counter(db: WriteDep, name: str) -> Counter:
    """Read the counter as a dependency reads the user, before the endpoint begins."""
    return await find(session_of(db), name)


CounterDep = Annotated[Counter, Depends(get_counter)]


@router.post("/{name}")
async def count_up(db: WriteDep, counter: CounterDep) -> int:
    """Lock the counter and add 1."""
    async with unit(db) as session:
        counters = CounterRepository(session)
        locked = await counters.lock(counter.id)
        assert locked is not None
        await counters.update(locked, {"value": locked.value + 1})
    return locked.value


@router.post("/{name}/later")
async def count_up_later(db: WriteDep, counter: CounterDep) -> int:
    """Lock the counter in the next transaction, and add 1."""
    await session_of(db).commit()
    return await count_up(db, counter)


@pytest.fixture(scope="module")
def counter_settings(notes_settings: Settings) -> Settings:
    """Give settings with a database that has the table of counters."""
    run(create_table, notes_settings, COUNTERS)
    return notes_settings


async def save_apart(database: Database) -> None:
    async with database.write_engine.begin() as connection:
        await connection.execute(insert(Counter).values(name="likes", value=0))


async def set_apart(database: Database, **values: Any) -> None:
    async with database.write_engine.begin() as connection:
        await connection.execute(update(Counter).values(**values))


async def stored(database: Database) -> dict[str, int]:
    async with database.write_engine.connect() as connection:
        rows = await connection.execute(select(COUNTERS.c.name, COUNTERS.c.value))
        return {row.name: row.value for row in rows}


@pytest.fixture
async def counters(counter_settings: Settings) -> AsyncIterator[Database]:
    """Give a database with the counter "likes", which is 0."""
    async with Database(counter_settings) as database:
        await save_apart(database)
        yield database
        assert await count_leaks(database) == 0
        await empty_tables(database, [COUNTERS])


@pytest.fixture(params=["in one transaction", "in the next transaction"])
def commits(request: pytest.FixtureRequest, counter_settings: Settings) -> bool:
    """Whether the session commits between reading and locking."""
    commits = bool(request.param == "in the next transaction")
    if counter_settings.is_sqlite and not commits:
        pytest.skip("SQLite locks everything when the transaction begins")
    return commits


async def read_then_wait(
    session: WriteSession,
    database: Database,
    commits: bool,
) -> Counter:
    """Read the counter; meanwhile another session sets it to 41 and commits."""
    counter = await find(session, "likes")
    assert counter.value == 0
    if commits:
        await session.commit()
    await set_apart(database, value=41)
    return counter


async def by_repository(session: WriteSession, id: int) -> Counter | None:
    return await CounterRepository(session).lock(id)


async def by_get(session: WriteSession, id: int) -> Counter | None:
    return await session.get(Counter, id, with_for_update=True)


async def by_get_one(session: WriteSession, id: int) -> Counter:
    return await session.get_one(Counter, id, with_for_update={"nowait": True})


async def by_select(session: WriteSession, id: int) -> Counter | None:
    query = select(Counter).where(Counter.id == id).with_for_update()
    return await session.scalar(query)


async def by_stream(session: WriteSession, id: int) -> Counter | None:
    query = select(Counter).where(Counter.id == id).with_for_update()
    result = await session.stream_scalars(query)
    return await result.one()


LOCKS = [by_repository, by_get, by_get_one, by_select, by_stream]


@pytest.mark.parametrize("lock", LOCKS)
async def test_a_row_that_was_read_before_is_fresh_when_it_is_locked(
    counters: Database, commits: bool, lock: Callable[..., Any]
) -> None:
    async with counters.write() as session:
        counter = await read_then_wait(session, counters, commits)
        locked = await lock(session, counter.id)
        assert locked is counter
        assert locked.value == 41
        locked.value += 1
        await session.commit()
    assert await stored(counters) == {"likes": 42}


@pytest.mark.parametrize("lock", LOCKS)
async def test_changes_that_were_not_flushed_survive_a_lock(
    counters: Database, lock: Callable[..., Any]
) -> None:
    async with counters.write() as session:
        counter = await find(session, "likes")
        counter.value = 5
        session.add(Counter(name="shares", value=7))
        locked = await lock(session, counter.id)
        assert locked.value == 5
        await session.commit()
    assert await stored(counters) == {"likes": 5, "shares": 7}


class FamilyRepository(NoteRepository):
    """Reads notes with their parents."""

    loads = (selectinload(Note.parent),)


async def test_what_is_loaded_with_a_locked_row_is_fresh_as_well(
    database: Database,
) -> None:
    async with database.write() as session:
        for number, parent_id in ((1, None), (2, None), (3, 1)):
            text = f"note {number}"
            session.add(Note(id=number, text=text, parent_id=parent_id))
        await session.commit()
        session.expunge_all()
        child = await FamilyRepository(session).get(3)
        assert child is not None
        assert child.parent is not None
        assert child.parent.text == "note 1"
        await session.commit()
        async with database.write_engine.begin() as other:
            await other.execute(update(Note).where(Note.id == 3).values(parent_id=2))
        assert await FamilyRepository(session).lock(3) is child
        assert child.parent.text == "note 2"
        await session.commit()


@pytest.mark.parametrize(
    "rows",
    [
        true(),
        Counter.name == "likes",
        # Python cannot say which objects are meant.
        func.lower(Counter.name) == "likes",
        # What the session has read is not what the database compares with.
        Counter.value == 41,
    ],
    ids=str,
)
async def test_a_bulk_update_leaves_no_stale_object(
    counters: Database, commits: bool, rows: ColumnElement[bool]
) -> None:
    async with counters.write() as session:
        counter = await read_then_wait(session, counters, commits)
        repository = CounterRepository(session)
        assert await repository.bulk_update(rows, value=Counter.value + 1) == 1
        assert counter.value == 42
        # It is written from what it shows.
        await repository.update(counter, {"value": counter.value + 1})
        await session.commit()
        assert counter.value == 43
    assert await stored(counters) == {"likes": 43}


async def test_a_bulk_update_leaves_other_objects_as_they_are(
    counters: Database, commits: bool
) -> None:
    async with counters.write() as session:
        counter = await read_then_wait(session, counters, commits)
        changed = await CounterRepository(session).bulk_update(
            Counter.value == 0,
            value=Counter.value + 1,
        )
        assert changed == 0
        assert counter.value in {0, 41}, "no row has ever been 1"
        await session.commit()
    assert await stored(counters) == {"likes": 41}


async def test_a_bulk_update_flushes_first(counters: Database) -> None:
    async with counters.write() as session:
        counter = await find(session, "likes")
        counter.value = 5
        await CounterRepository(session).bulk_update(value=Counter.value + 1)
        assert counter.value == 6
        await session.commit()
    assert await stored(counters) == {"likes": 6}


async def update_returning(session: WriteSession) -> Counter | None:
    statement = update(Counter).values(value=Counter.value + 1)
    return await session.scalar(statement.returning(Counter))


async def insert_or_update(session: WriteSession) -> Counter | None:
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    insert: Any = sqlite.insert if is_sqlite else postgresql.insert
    statement = insert(Counter).values(name="likes", value=1)
    statement = statement.on_conflict_do_update(
        index_elements=[Counter.name], set_={"value": Counter.value + 1}
    )
    counter: Counter | None = await session.scalar(statement.returning(Counter))
    return counter


@pytest.mark.parametrize("change", [update_returning, insert_or_update])
async def test_returning_refreshes_an_object_that_was_read_before(
    counters: Database, commits: bool, change: Callable[..., Any]
) -> None:
    async with counters.write() as session:
        counter = await read_then_wait(session, counters, commits)
        assert await change(session) is counter
        assert counter.value == 42
        counter.value += 1
        await session.commit()
    assert await stored(counters) == {"likes": 43}


@pytest.fixture
def counting(counter_settings: Settings) -> Iterator[TestClient]:
    """Give a client of an app with the counter's endpoints, and time enough."""
    with serve_routers(
        counter_settings,
        router,
        tables=[COUNTERS],
        database_pool_size=5,
        database_pool_timeout=10,
        database_lock_timeout=10,
        database_statement_timeout=20,
    ) as client:
        call(client, save_apart, database_of(client))
        yield client


@pytest.mark.parametrize("path", ["/counters/likes", "/counters/likes/later"])
def test_concurrent_increments_are_all_counted(counting: TestClient, path: str) -> None:
    responses = at_once(lambda _: counting.post(path), 20)
    assert [response.status_code for response in responses] == [200] * 20
    assert sorted(response.json() for response in responses) == [*range(1, 21)]
    assert call(counting, stored, database_of(counting)) == {"likes": 20}
{% endblock %}
