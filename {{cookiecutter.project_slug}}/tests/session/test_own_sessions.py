"""A task that holds no session may open one, beside a request and after it."""

import asyncio
from collections.abc import Iterator
from threading import Event
from typing import Annotated

import pytest
from fastapi import Depends, Request
from starlette.testclient import TestClient

from app.config import Settings
from app.db import errors
from app.db.database import Database
from app.dependencies import ReadDep, WriteDep, get_database
from app.routing import Router
from app.run import run_read, run_transaction
from tests.session import probe as notes
from tests.session.conftest import serve_routers

router = Router(prefix="/own")
# The errors of refused sessions.
refused: list[errors.DatabaseError] = []
# The tasks that go on after their request.
tasks: list[asyncio.Task[int]] = []
# Open when they may begin.
gate = Event()


async def look(request: Request) -> int:
    """Count the notes in a session of its own."""
    try:
        return await run_read(get_database(request), notes.count)
    except errors.SecondSessionError as error:
        refused.append(error)
        raise


LookDep = Annotated[int, Depends(look)]


@router.post("/beside")
def look_beside(_db: ReadDep, found: LookDep) -> int:
    """Count the notes while the request has a session."""
    return found


@router.post("/before")
def look_before(found: LookDep, _db: ReadDep) -> int:
    """Count the notes before the request has a session."""
    return found


@router.post("/gathered")
async def look_twice(request: Request) -> tuple[int, int]:
    """Count the notes in two tasks, each of which has a session of its own."""
    return await asyncio.gather(look(request), look(request))


async def save_and_count(database: Database) -> int:
    await asyncio.to_thread(gate.wait, 10)
    await run_transaction(database, notes.save, notes.NoteIn())
    return await run_read(database, notes.count)


async def leave_a_task(request: Request) -> None:
    """Begin what goes on when the request has ended."""
    tasks.append(asyncio.create_task(save_and_count(get_database(request))))


@router.post("/left")
def leave_over(_db: WriteDep, _task: Annotated[None, Depends(leave_a_task)]) -> None:
    """Respond before all is done."""


async def result_of_the_task() -> int:
    return await tasks.pop()


@pytest.fixture(scope="module")
def client(notes_settings: Settings) -> Iterator[TestClient]:
    """Give a client of an app with the endpoints above."""
    with serve_routers(notes_settings, router) as client:
        yield client


def test_a_dependency_opens_no_session_beside_the_requests(client: TestClient) -> None:
    refused.clear()
    response = client.post("/own/beside")
    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    (error,) = refused
    assert "POST /own/beside" in str(error)
    assert "use it" in str(error)


def test_a_dependency_may_end_its_session_before_the_requests_begins(
    client: TestClient,
) -> None:
    response = client.post("/own/before")
    assert (response.status_code, response.json()) == (200, 0)


def test_each_task_may_have_a_session_of_its_own(client: TestClient) -> None:
    response = client.post("/own/gathered")
    assert (response.status_code, response.json()) == (200, [0, 0])


def test_a_task_that_is_left_over_may_open_a_session(client: TestClient) -> None:
    gate.clear()
    try:
        assert client.post("/own/left").status_code == 200
    finally:
        gate.set()
    assert client.portal is not None
    assert client.portal.call(result_of_the_task) == 1
