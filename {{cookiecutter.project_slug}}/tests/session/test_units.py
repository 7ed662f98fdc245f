{% extends "async.jinja" %}
{% block code %}
"""Services in transactions of their own: serializable, retried, in the background."""

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Any

import pytest
from anyio import to_thread
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from starlette.testclient import TestClient
from tenacity import AsyncRetrying, wait_chain, wait_fixed

from app import run
from app.config import Settings
from app.db.database import Database
from app.db.errors import CommitOutcomeUnknownError, is_retryable
from app.db.session import WriteSession
from app.dependencies import WriteDep
from app.main import create_app
from app.run import run_in_background, run_serializable, run_transaction
from tests.session.probe import Note, NoteIn, add, count, session_of, unit
from tests.session.test_admission import database_of


class SerializationError(Exception):
    """A driver's error, as far as the session layer looks at it."""

    sqlstate = "40001"


def failed() -> DBAPIError:
    return DBAPIError("SELECT", None, SerializationError())


def do(client: TestClient, way: Callable[..., Any], *args: Any) -> Any:
    """Run a function of `app.run` where the app runs."""
    assert client.portal is not None
    return client.portal.call(way, database_of(client), *args)


async def save(db: WriteDep, note: NoteIn) -> int:
    async with unit(db) as session:
        stored = await add(session, note)
    return stored.id


async def save_apart(database: Database, note: str) -> None:
    async with database.write() as session:
        session.add(Note(text=note))
        await session.commit()


class Rival:
    """A service whose first attempt has a serialization conflict."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.sessions: list[WriteSession] = []

    async def count_and_save(self, db: WriteDep) -> int:
        self.sessions.append(session_of(db))
        async with unit(db) as session:
            notes = await count(session)
            if len(self.sessions) == 1:
                # No serial order explains both what was counted and what was saved.
                await self.count_and_save_too()
            await add(session, NoteIn(text=f"after {notes}"))
        return notes

    async def count_and_save_too(self) -> None:
        async with self.database.write(serializable=True) as session:
            await session.set_timeouts(lock=0.05)
            notes = await count(session)
            session.add(Note(text=f"the rival's, after {notes}"))
            await session.commit()


def test_a_conflict_is_retried_in_a_new_session(probe: TestClient) -> None:
    rival = Rival(database_of(probe))
    notes = do(probe, run_serializable, rival.count_and_save)
    assert len(rival.sessions) == 2
    assert rival.sessions[0] is not rival.sessions[1]
    # On SQLite the rival times out waiting for the lock.
    assert probe.get("/notes").json() == notes + 1


async def isolation(db: WriteDep) -> str:
    level = await session_of(db).scalar(text("SHOW transaction_isolation"))
    return str(level)


def test_only_run_serializable_is_serializable(
    probe: TestClient, notes_settings: Settings
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip("SQLite keeps writers apart in any case")
    assert do(probe, run_serializable, isolation) == "serializable"
    assert do(probe, run_transaction, isolation) == "read committed"


class Failing:
    """A service that fails so many times."""

    def __init__(self, error: BaseException, times: int, *, commits: bool) -> None:
        self.error = error
        self.times = times
        self.commits = commits
        self.attempts = 0

    async def run(self, db: WriteDep) -> int:
        await count(session_of(db))
        self.attempts += 1
        if self.commits:
            await session_of(db).commit()
        if self.attempts <= self.times:
            raise self.error
        return self.attempts


def test_what_may_have_committed_is_not_retried(probe: TestClient) -> None:
    for error, commits in [
        (failed(), True),
        (CommitOutcomeUnknownError(), False),
        (RuntimeError("a bug"), False),
    ]:
        unit = Failing(error, 1, commits=commits)
        with pytest.raises(type(error)):
            do(probe, run_serializable, unit.run)
        assert unit.attempts == 1


def test_a_service_is_retried_until_it_succeeds(probe: TestClient) -> None:
    assert do(probe, run_serializable, Failing(failed(), 3, commits=False).run) == 4


def test_retrying_ends_at_the_deadline(
    notes_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadline = notes_settings.database_retry_deadline
    waits = wait_chain(wait_fixed(0), wait_fixed(deadline))
    monkeypatch.setattr(run, "wait_random_exponential", lambda *_: waits)
    failing = Failing(failed(), 1_000, commits=False)
    with TestClient(create_app(notes_settings)) as client, pytest.raises(DBAPIError):
        do(client, run_serializable, failing.run)
    assert failing.attempts == 2


def test_no_slot_is_held_while_waiting_to_retry(
    notes_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, is_over = Event(), Event()

    def sleep(_seconds: float) -> Awaitable[Any]:
        waits.set()
        return to_thread.run_sync(is_over.wait, 10)

    retrying = partial(AsyncRetrying, sleep=sleep)
    monkeypatch.setattr(run, "AsyncRetrying", retrying)
    one = {"database_max_overflow": 0}
    failing = Failing(failed(), 1, commits=False)
    with (
        TestClient(create_app(notes_settings.model_copy(update=one))) as client,
        ThreadPoolExecutor() as threads,
    ):
        running = threads.submit(do, client, run_serializable, failing.run)
        try:
            assert waits.wait(10), "no retry was waited for"
            # The only slot, and the only connection.
            assert do(client, run_transaction, save, NoteIn()) > 0
            assert failing.attempts == 1
        finally:
            is_over.set()
        assert running.result() == 2


@pytest.mark.parametrize(
    ("sqlstate", "again"),
    [("40001", True), ("40P01", True), ("55P03", False), ("57014", False)],
)
def test_the_sqlstate_decides_what_is_retried(
    sqlstate: str, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SerializationError, "sqlstate", sqlstate)
    assert is_retryable(failed()) is again


def test_an_error_in_the_background_is_logged_and_saves_nothing(
    probe: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    do(probe, run_in_background, save, NoteIn(text="kept"))
    do(probe, run_in_background, save, NoteIn(text="forbidden"))
    assert "background task save failed" in caplog.text
    assert probe.get("/notes").json() == 1


def test_the_requests_session_raises_in_the_background(
    probe: TestClient,
) -> None:
    with pytest.raises(RuntimeError) as failure:
        probe.post("/notes/handed-over")
    assert "permanently closed" in str(failure.value.__cause__)
    assert probe.get("/notes").json() == 0
{% endblock %}
