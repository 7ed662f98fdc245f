{% extends "async.jinja" %}
{% block code %}
"""A transaction may have timeouts of its own, which end with it."""

import time
from collections.abc import AsyncIterator
from typing import Unpack

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.config import Settings
from app.db.database import Database
from app.db.errors import SnapshotNeededError, to_problem
from app.db.session import WriteSession
from app.db.timeouts import Timeouts
from tests.session.conftest import TABLE
from tests.session.probe import count
from tests.support import count_leaks, empty_tables

# The statement takes longer than a hundredth of a second, and less than a minute.
SLOW = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000)"
    " SELECT max(i) FROM n"
)


@pytest.fixture
async def patient(notes_settings: Settings) -> AsyncIterator[Database]:
    """Give a database whose sessions have no timeouts."""
    none = {
        "database_statement_timeout": 0,
        "database_lock_timeout": 0,
        "database_idle_in_transaction_timeout": 0,
    }
    database = Database(notes_settings.model_copy(update=none))
    yield database
    assert await count_leaks(database) == 0
    await empty_tables(database, [TABLE])
    await database.dispose()


async def test_a_slow_statement_ends_at_the_transactions_own_timeout(
    patient: Database,
) -> None:
    for kind in (patient.write, patient.snapshot):
        async with kind() as session:
            await session.set_timeouts(statement=0.01)
            with pytest.raises(DBAPIError) as failure:
                await session.scalar(SLOW)
            assert to_problem(failure.value).status == 504
            await session.rollback()
            # The next transaction has the usual timeout.
            assert await session.scalar(SLOW) == 500_000
        async with kind() as session:
            assert await session.scalar(SLOW) == 500_000


async def test_a_timeout_ends_with_a_committed_transaction(patient: Database) -> None:
    async with patient.write() as session:
        await session.set_timeouts(statement=0.01)
        await session.commit()
        assert await session.scalar(SLOW) == 500_000
    async with patient.write() as session:
        assert await session.scalar(SLOW) == 500_000


async def test_a_stream_on_sqlite_may_take_longer(database: Database) -> None:
    each = text(SLOW.text.replace("max(i)", "i") + " LIMIT 100000")
    rows = each.execution_options(yield_per=10_000)
    async with database.snapshot() as session:
        if session.get_bind().dialect.name == "postgresql":
            pytest.skip("PostgreSQL counts the time of each batch")
        await session.set_timeouts(statement=0.01)
        stream = await session.stream_scalars(rows)
        numbers = [len(batch) async for batch in stream.partitions()]
        assert sum(numbers) == 100_000


async def test_a_timeout_may_be_set_in_a_begun_transaction(patient: Database) -> None:
    async with patient.snapshot() as session:
        assert await count(session) == 0
        await session.set_timeouts(statement=0.01)
        with pytest.raises(DBAPIError):
            await session.scalar(SLOW)


async def test_a_timeout_may_be_longer_than_in_the_settings(database: Database) -> None:
    async with database.snapshot() as session:
        await session.set_timeouts(statement=0)
        assert await session.scalar(SLOW) == 500_000


async def lock_notes(session: WriteSession, **timeouts: Unpack[Timeouts]) -> None:
    await session.set_timeouts(**timeouts)
    connection = await session.connection()  # on SQLite, BEGIN takes the lock
    if connection.dialect.name == "postgresql":
        await connection.execute(text("LOCK TABLE test_notes"))


async def test_waiting_for_a_lock_ends_at_the_transactions_own_timeout(
    database: Database,
    patient: Database,
) -> None:
    async with database.write() as holder:
        await lock_notes(holder)
        start = time.monotonic()
        async with patient.write() as session:
            with pytest.raises(DBAPIError) as failure:
                await lock_notes(session, lock=0.05)
            await session.rollback()
        assert time.monotonic() - start < 4, "the driver's own limit is 5 seconds"
        assert to_problem(failure.value).type == "database-busy"
    async with patient.write() as session:
        is_sqlite = session.get_bind().dialect.name == "sqlite"
        show = "PRAGMA busy_timeout" if is_sqlite else "SHOW lock_timeout"
        assert await session.scalar(text(show)) == (86_400_000 if is_sqlite else "0")


@pytest.mark.parametrize("is_of_its_own", [True, False])
async def test_an_idle_transaction_is_ended(
    notes_settings: Settings,
    is_of_its_own: bool,
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip("SQLite ends no transaction")
    # A busy machine takes its time between a new connection's first statements.
    limit = 0 if is_of_its_own else 1
    short = {"database_idle_in_transaction_timeout": limit}
    async with Database(notes_settings.model_copy(update=short)) as database:
        async with database.write() as session:
            pid = await session.scalar(text("SELECT pg_backend_pid()"))
            if is_of_its_own:
                await session.set_timeouts(idle_in_transaction=0.05)
            await wait_for_the_end_of(pid, database)
            with pytest.raises(DBAPIError) as failure:
                await count(session)
            await session.rollback()
        assert to_problem(failure.value).type == "database-unavailable"
        async with database.write() as session:
            assert await count(session) == 0


async def wait_for_the_end_of(pid: int | None, database: Database) -> None:
    query = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
    deadline = time.monotonic() + 10
    is_there = 1
    while is_there:
        assert time.monotonic() < deadline, "it is still connected"
        # A transaction sees one snapshot of pg_stat_activity.
        async with database.readiness_engine.connect() as connection:
            is_there = await connection.scalar(query, {"pid": pid}) or 0


async def test_behind_a_pooler_timeouts_end_with_the_transaction_too(
    notes_settings: Settings,
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip("SQLite has no pooler")
    pooled = notes_settings.model_copy(update={"database_pooler": "transaction"})
    async with Database(pooled) as database, database.write() as session:
        await session.set_timeouts(lock=0.05)
        assert await session.scalar(text("SHOW lock_timeout")) == "50ms"
        await session.rollback()
        assert await session.scalar(text("SHOW lock_timeout")) == "300ms"


async def read_within(database: Database, seconds: float, *, alone: bool) -> None:
    async with database.read() if alone else database.snapshot() as session:
        await session.set_timeouts(statement=seconds)


async def test_negative_and_too_long_timeouts_are_refused(database: Database) -> None:
    with pytest.raises(SnapshotNeededError):
        await read_within(database, 1, alone=True)
    for seconds in (-1, 86_401, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be between 0"):
            await read_within(database, seconds, alone=False)
{% endblock %}
