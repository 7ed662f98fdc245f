"""A cancelled transaction saves nothing, and leaks no connection."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from anyio import CancelScope, to_thread

from app.db.database import Database
from app.run import run_read, run_serializable, run_transaction
from tests.session import probe as notes


@pytest.fixture(autouse=True)
def closed_gate() -> Iterator[None]:
    """Keep each transaction open until the test opens the gate."""
    notes.saving.clear()
    notes.gate.clear()
    yield
    notes.gate.set()


@pytest.mark.parametrize("way", [run_transaction, run_serializable])
@pytest.mark.parametrize("by_scope", [False, True])
async def test_a_cancelled_transaction_saves_nothing(
    database: Database, way: Callable[..., Awaitable[Any]], by_scope: bool
) -> None:
    scope = CancelScope()

    async def save() -> None:
        with scope:
            await way(database, notes.save_slowly, notes.NoteIn())

    task = asyncio.create_task(save())
    await to_thread.run_sync(notes.saving.wait, 10)
    # As anyio's timeouts and task groups cancel, or as asyncio's and a shutdown do.
    scope.cancel() if by_scope else task.cancel()
    await asyncio.sleep(0)
    notes.gate.set()
    await asyncio.wait({task})
    assert scope.cancelled_caught if by_scope else task.cancelled()
    assert database.gauges()["write"]["checked_out"] == 0
    assert await run_read(database, notes.count) == 0
