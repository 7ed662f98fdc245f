{% extends "async.jinja" %}
{% block code %}
"""A second session in a request is refused: under load it would deadlock the pool."""

{% if cookiecutter.io == 'async' %}
import asyncio
{% endif %}
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
{% if cookiecutter.io == 'async' %}
from anyio import create_task_group
{% endif %}
from fastapi import BackgroundTasks, Request
from starlette.testclient import TestClient

from app.config import Settings
from app.db import errors
from app.db.database import Database
from app.dependencies import ReadDep, SnapshotDep, StreamDep, WriteDep, get_database
from app.routing import Router
from app.run import run_read, run_serializable, run_transaction
from app.streaming import JsonLines
from tests.session import probe as notes
from tests.session.conftest import serve_routers
from tests.session.probe import NoteIn, add, count, run_unit, save

router = Router(prefix="/one")
# The errors of refused sessions.
refused: list[errors.DatabaseError] = []


async def read_in_unit(database: Database) -> None:
    await run_unit(run_read, database, count)


async def write_in_unit(database: Database) -> None:
    await run_unit(run_transaction, database, save, NoteIn())


async def write_serializably(database: Database) -> None:
    await run_unit(run_serializable, database, save, NoteIn(text="another"))


async def open_read(database: Database) -> None:
    async with database.read() as session:
        await count(session)


async def open_snapshot(database: Database) -> None:
    async with database.snapshot() as session:
        await count(session)


async def open_write(database: Database) -> None:
    async with database.write() as session:
        await count(session)


WAYS: dict[str, Callable[..., Any]] = {
    way.__name__: way
    for way in (
        read_in_unit,
        write_in_unit,
        write_serializably,
        open_read,
        open_snapshot,
        open_write,
    )
}


async def in_helper(database: Database, way: str) -> None:
    """Open a session, and keep the error."""
    try:
        await WAYS[way](database)
    except errors.SecondSessionError as error:
        refused.append(error)
        raise


{% if cookiecutter.io == 'async' %}
async def in_gather(database: Database, way: str) -> None:
    await asyncio.gather(in_helper(database, way), asyncio.sleep(0))


async def in_task_group(database: Database, way: str) -> None:
    async with create_task_group() as tasks:
        tasks.start_soon(in_helper, database, way)


PLACES = {"helper": in_helper, "gather": in_gather, "group": in_task_group}
{% else %}
PLACES = {"helper": in_helper}
{% endif %}


@router.post("/write/{place}/{way}")
async def open_in_write(request: Request, _db: WriteDep, place: str, way: str) -> None:
    """Open another session beside one for writing."""
    await PLACES[place](get_database(request), way)


@router.post("/read/{place}/{way}")
async def open_in_read(request: Request, _db: ReadDep, place: str, way: str) -> None:
    """Open another session beside one for reading."""
    await PLACES[place](get_database(request), way)


@router.post("/snapshot/{place}/{way}")
async def open_in_snapshot(
    request: Request,
    _db: SnapshotDep,
    place: str,
    way: str,
) -> None:
    """Open another session beside a snapshot."""
    await PLACES[place](get_database(request), way)


@router.post("/own/{place}/{way}")
async def open_in_own(request: Request, place: str, way: str) -> None:
    """Open another session beside one that the endpoint has opened itself."""
    async with get_database(request).read():
        await PLACES[place](get_database(request), way)


async def open_all(database: Database) -> int:
    """Open sessions in all ways, one after the other; return how many."""
    for way in WAYS.values():
        await way(database)
    return len(WAYS)


@router.post("/after-each-other")
async def open_one_after_the_other(request: Request) -> int:
    """Open sessions, each when the one before has ended."""
    return await open_all(get_database(request))


async def work(database: Database) -> None:
    notes.seen.append(await open_all(database))


@router.post("/background")
async def work_in_background(
    request: Request,
    _db: WriteDep,
    tasks: BackgroundTasks,
) -> None:
    """Leave the work to a background task, which has sessions of its own."""
    tasks.add_task(work, get_database(request))


async def lines(database: Database) -> AsyncIterator[str]:
    """Give a line that takes sessions of its own."""
    yield f"{await open_all(database)}\n"


@router.post("/stream")
async def stream(request: Request, _db: StreamDep) -> JsonLines:
    """Send what is read with other sessions as well."""
    return JsonLines(request, lines(get_database(request)))


@router.post("/stream-after-write")
async def stream_after_write(request: Request, _db: WriteDep) -> JsonLines:
    """Send what is read when the request's own session has ended."""
    return JsonLines(request, lines(get_database(request)))


@pytest.fixture(scope="module")
def client(notes_settings: Settings) -> Iterator[TestClient]:
    """Give a client of an app with the endpoints above, which may wait for long."""
    routers = (router, notes.router)
    with serve_routers(notes_settings, *routers, database_pool_timeout=5) as client:
        yield client


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["write", "read", "snapshot", "own"])
def test_a_second_session_is_refused_at_once(
    client: TestClient, kind: str, place: str, way: str
) -> None:
    refused.clear()
    start = time.monotonic()
    response = client.post(f"/one/{kind}/{place}/{way}")
    assert time.monotonic() - start < 1
    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    (error,) = refused
    assert f"POST /one/{kind}/" in str(error)
    assert "use it" in str(error)
    assert client.get("/notes").json() == 0


def test_sessions_after_each_other_are_not_refused(client: TestClient) -> None:
    response = client.post("/one/after-each-other")
    assert (response.status_code, response.json()) == (200, len(WAYS))


def test_a_background_task_has_sessions_of_its_own(client: TestClient) -> None:
    notes.seen.clear()
    assert client.post("/one/background").status_code == 200
    assert notes.seen == [len(WAYS)]


@pytest.mark.parametrize("path", ["/one/stream", "/one/stream-after-write"])
def test_a_stream_may_open_sessions_of_its_own(client: TestClient, path: str) -> None:
    response = client.post(path)
    assert (response.status_code, response.text) == (200, f"{len(WAYS)}\n")


async def test_outside_requests_sessions_may_nest(database: Database) -> None:
    async with database.read() as reader:
        async with database.snapshot() as other, database.write() as session:
            await add(session, NoteIn())
            await session.commit()
            assert await count(other) == 1
        assert await count(reader) == 1
{% endblock %}
