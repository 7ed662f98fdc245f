"""What is cancelled saves nothing, and leaves nothing behind (S3, S5)."""

import asyncio
{% if cookiecutter.io == 'sync' %}
import time
{% endif %}
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from anyio import CancelScope, to_thread

{% if cookiecutter.io == 'sync' %}
from app.config import Settings
{% endif %}
from app.db.database import Database
from app.run import run_read, run_serializable, run_transaction
from tests.session import probe as notes


@pytest.fixture(autouse=True)
def closed_gate() -> Iterator[None]:
    """Let no unit end before it is told to."""
    notes.saving.clear()
    notes.gate.clear()
    yield
    notes.gate.set()


@pytest.mark.parametrize("way", [run_transaction, run_serializable])
@pytest.mark.parametrize("by_scope", [False, True])
async def test_a_cancelled_unit_saves_nothing(
    database: Database, way: Callable[..., Awaitable[Any]], by_scope: bool
) -> None:
    scope = CancelScope()

    async def save() -> None:
        with scope:
            await way(database, notes.save_slowly, notes.NoteIn())

    task = asyncio.create_task(save())
    await to_thread.run_sync(notes.saving.wait, 10)
    # As anyio's timeouts and groups do it, or as asyncio's and the server's end.
    scope.cancel() if by_scope else task.cancel()
    await asyncio.sleep(0)
    notes.gate.set()
    await asyncio.wait({task})
    assert scope.cancelled_caught if by_scope else task.cancelled()
    assert database.gauges()["write"]["checked_out"] == 0
    assert await run_read(database, notes.count) == 0
{% if cookiecutter.io == 'sync' %}


def wait_for_somebody_to_wait(database: Database) -> None:
    deadline = time.monotonic() + 10
    while not database.gauges()["write"]["waiting"]:
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def test_its_place_is_taken_as_long_as_its_thread_goes_on(
    notes_settings: Settings, database: Database
) -> None:
    one = {"database_max_overflow": 0, "database_pool_timeout": 20}
    with Database(notes_settings.model_copy(update=one)) as narrow:
        task = asyncio.create_task(
            run_transaction(narrow, notes.save_slowly, notes.NoteIn(text="lost"))
        )
        await to_thread.run_sync(notes.saving.wait, 10)
        task.cancel()
        other = asyncio.create_task(
            run_transaction(narrow, notes.save, notes.NoteIn(text="kept"))
        )
        await to_thread.run_sync(wait_for_somebody_to_wait, narrow)
        notes.gate.set()
        await other
        assert task.cancelled()
    assert await run_read(database, notes.count) == 1
{% endif %}
