{% extends "async.jinja" %}
{% block code %}
"""After a commit, no response says that nothing was saved."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from httpx2 import Response
from sqlalchemy import event, text
from starlette.testclient import TestClient

from app.config import Settings
from app.db.session import ReadSession, WriteSession
from app.dependencies import ReadDep, SnapshotDep, WriteDep, get_database
from app.problems import ConflictError
from app.routing import Router
from app.run import run_read, run_serializable, run_transaction
from tests.session import probe as notes
from tests.session.conftest import serve_routers
from tests.session.probe import NoteIn, add, count, run_unit, save, unit
from tests.session.test_admission import database_of
from tests.support import execute, run

router = Router(prefix="/after")
PID = text("SELECT pg_backend_pid()")


def kill(request: Request, pid: int | None) -> None:
    """End a connection, from another one."""
    statement = f"SELECT pg_terminate_backend({pid}, 5000)"
    with ThreadPoolExecutor(1) as thread:
        thread.submit(run, execute, request.app.state.settings, statement).result()


async def lose_connection(request: Request, session: WriteSession) -> None:
    kill(request, await session.scalar(PID))
    await count(session)


async def wait_for_a_lock(request: Request, session: WriteSession) -> None:
    # On SQLite, BEGIN takes the lock.
    async with get_database(request).write_engine.begin() as other:
        if other.dialect.name == "postgresql":
            await other.execute(text("LOCK TABLE test_notes"))
        await count(session)


async def find_no_connection(request: Request, session: WriteSession) -> None:
    engine = get_database(request).write_engine
    async with engine.connect(), engine.connect():
        await count(session)


async def take_too_long(_request: Request, session: WriteSession) -> None:
    await session.set_timeouts(statement=0.05)
    await session.scalar(notes.SLOW)


TROUBLES: dict[str, Callable[..., Any]] = {
    "database-unavailable": lose_connection,
    "database-busy": wait_for_a_lock,
    "pool-exhausted": find_no_connection,
    "database-timeout": take_too_long,
}


@router.post("/{trouble}")
async def save_then_fail(request: Request, db: WriteDep, trouble: str) -> None:
    """Save a note; then fail to read."""
    async with unit(db) as session:
        await add(session, NoteIn())
        # Explicitly, as the request may be the transaction.
        await session.commit()
    await TROUBLES[trouble](request, session)


@router.post("/{trouble}/unsaved")
async def fail_before_saving(request: Request, db: WriteDep, trouble: str) -> None:
    """Fail to read, and save nothing."""
    async with unit(db) as session:
        await TROUBLES[trouble](request, session)
        await add(session, NoteIn())


async def die(session: ReadSession) -> None:
    """Read while the server ends the connection."""
    await session.scalar(text("SELECT pg_terminate_backend(pg_backend_pid())"))


UNITS: dict[str, Callable[..., Any]] = {
    "write": run_transaction,
    "serializable": run_serializable,
}


@router.post("/unit/{way}/{trouble}")
async def save_apart_then_fail(request: Request, way: str, trouble: str) -> None:
    """Save a note in a transaction of its own; then fail to read in another."""
    database = get_database(request)
    await run_unit(UNITS[way], database, save, NoteIn())
    if trouble == "database-unavailable":
        await run_unit(run_read, database, die)
    engine = database.read_engine
    async with engine.connect(), engine.connect():
        await run_unit(run_read, database, count)


def raise_conflict() -> Response:
    raise ConflictError("There are too many notes.")


def raise_http_exception() -> Response:
    raise HTTPException(409, "There are too many notes.")


def return_conflict() -> JSONResponse:
    return JSONResponse({"detail": "There are too many notes."}, 409)


CONFLICTS: dict[str, Callable[..., Any]] = {
    "raise": raise_conflict,
    "raise-http": raise_http_exception,
    "return": return_conflict,
}


@router.post("/conflict/{way}", response_model=None)
async def save_then_refuse(
    request: Request, db: WriteDep, way: str, is_lost: bool
) -> JSONResponse:
    """Save a note, and raise a 409."""
    async with unit(db) as session:
        await add(session, NoteIn())
        await session.commit()
    if is_lost:
        kill(request, await session.scalar(PID))
    response: JSONResponse = CONFLICTS[way]()
    return response


@router.post("/returned/write", status_code=201)
async def save_read_and_lose(request: Request, db: WriteDep) -> int:
    """Save a note and read; then the connection dies."""
    async with unit(db) as session:
        await add(session, NoteIn())
        await session.commit()
    notes = await count(session)
    kill(request, await session.scalar(PID))
    return notes


@router.post("/returned/commit", status_code=201)
async def lose_when_saved(request: Request, db: WriteDep) -> int:
    """Save a note; the connection dies between COMMIT and its return."""
    async with unit(db) as session:
        pid = await session.scalar(PID)
        event.listen(
            session.sync_session,
            "after_commit",
            lambda _: kill(request, pid),
            once=True,
        )
        await add(session, NoteIn())
        return await count(session)


@router.post("/returned/snapshot", status_code=201)
async def read_and_lose(request: Request, db: SnapshotDep) -> int:
    """Read; then the connection dies."""
    kill(request, await db.scalar(PID))
    return 1


@router.post("/returned/read", status_code=201)
async def read_once_and_lose(request: Request, db: ReadDep) -> int:
    """Read with one statement; then the connection dies."""
    kill(request, await db.scalar(PID))
    return 1


@pytest.fixture(scope="module")
def client(notes_settings: Settings) -> Iterator[TestClient]:
    """Give a client of an app with the endpoints above."""
    with serve_routers(notes_settings, router, notes.router) as client:
        assert isinstance(client.app, FastAPI)
        client.app.state.settings = notes_settings
        database = database_of(client)
        for engine in (database.write_engine, database.read_engine):
            pool: Any = engine.pool
            # Nobody gives back what `find_no_connection` holds.
            pool._timeout = 0.01
        yield client


@pytest.fixture
def is_sqlite(notes_settings: Settings) -> bool:
    return notes_settings.is_sqlite


def assert_says_that_it_was_saved(response: Response) -> None:
    assert response.status_code == 500
    problem = response.json()
    assert problem["type"] == "failed-after-commit"
    assert "was saved" in problem["detail"]
    assert "try again" not in problem["detail"].lower()
    assert "Retry-After" not in response.headers


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_fails_after_the_commit_says_that_it_was_saved(
    client: TestClient, is_sqlite: bool, trouble: str
) -> None:
    if is_sqlite and trouble == "database-unavailable":
        pytest.skip("SQLite has no connection to lose")
    assert_says_that_it_was_saved(client.post(f"/after/{trouble}"))
    assert client.get("/notes").json() == 1
    # The next request has a state of its own.
    response = client.post(f"/after/{trouble}/unsaved")
    assert response.status_code in {503, 504}
    assert response.json()["type"] == trouble
    assert client.get("/notes").json() == 1


@pytest.mark.parametrize("way", UNITS)
@pytest.mark.parametrize("trouble", ["database-unavailable", "pool-exhausted"])
def test_what_fails_after_run_transaction_says_that_it_was_saved(
    client: TestClient, is_sqlite: bool, way: str, trouble: str
) -> None:
    if is_sqlite and trouble == "database-unavailable":
        pytest.skip("SQLite has no connection to lose")
    assert_says_that_it_was_saved(client.post(f"/after/unit/{way}/{trouble}"))
    assert client.get("/notes").json() == 1


@pytest.mark.parametrize("way", CONFLICTS)
@pytest.mark.parametrize("is_lost", [False, True])
def test_an_endpoints_own_409_after_the_commit_stays_so(
    client: TestClient, is_sqlite: bool, way: str, is_lost: bool
) -> None:
    if is_sqlite and is_lost:
        pytest.skip("SQLite has no connection to lose")
    response = client.post(f"/after/conflict/{way}", params={"is_lost": is_lost})
    assert response.status_code == 409
    assert response.json()["detail"] == "There are too many notes."
    assert client.get("/notes").json() == 1


{% if cookiecutter.commit == 'auto' and cookiecutter.pattern == 'repository' %}
READS = ["snapshot"]
{% else %}
READS = ["snapshot", "write"]
{% endif %}


@pytest.mark.parametrize("kind", READS)
def test_a_connection_that_dies_before_it_is_given_back_fails_nobody(
    client: TestClient,
    is_sqlite: bool,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if is_sqlite:
        pytest.skip("SQLite has no connection to lose")
    response = client.post(f"/after/returned/{kind}")
    assert (response.status_code, response.json()) == (201, 1)
    assert f"POST /after/returned/{kind}" in caplog.text
    assert client.get("/notes").json() == (kind == "write")


@pytest.mark.parametrize("kind", ["commit", "read"])
def test_a_connection_that_dies_outside_a_transaction_fails_nobody(
    client: TestClient, settings: Settings, kind: str
) -> None:
    if settings.is_sqlite:
        pytest.skip("SQLite has no connection to lose")
    if settings.database_pooler == "transaction":
        pytest.skip("behind a pooler, the connection is the pooler's by then")
    response = client.post(f"/after/returned/{kind}")
    assert (response.status_code, response.json()) == (201, 1)
    assert client.get("/notes").json() == (kind == "commit")
{% endblock %}
