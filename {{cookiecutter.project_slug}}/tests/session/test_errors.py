{% extends "async.jinja" %}
{% block code %}
"""What the client is told about a database error, by SQLSTATE."""

import socket
import sqlite3
{% if cookiecutter.io == 'async' %}
import threading
{% endif %}
import time
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
from fastapi import FastAPI
from httpx2 import Response
from sqlalchemy import exc, text
from starlette.testclient import TestClient

from app import health
from app.config import Settings
from app.db import errors
from app.db.database import Database
from app.db.migrations import upgrade
from app.dependencies import WriteDep
from app.main import create_app
from app.routing import Router
from tests.conftest import DATABASES, fresh_database
from tests.session.conftest import serve_routers
from tests.session.probe import Note, add_and_commit, count, session_of
from tests.session.probe import router as notes_router
from tests.support import at_once, copy_note, driver_of, execute, make_settings

router = Router(prefix="/raw")


class DriverError(Exception):
    """An error as a PostgreSQL driver raises it."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("secret")
        self.sqlstate = sqlstate


def database_error(sqlstate: str | None, *, lost: bool = False) -> exc.DBAPIError:
    return exc.DBAPIError(
        "SELECT secret", None, DriverError(sqlstate), connection_invalidated=lost
    )


@pytest.mark.parametrize(
    ("sqlstate", "status", "type"),
    [
        ("23505", 409, "already-exists"),
        ("23P01", 409, "already-exists"),
        ("23503", 409, "reference-conflict"),
        ("23001", 409, "reference-conflict"),
        ("23502", 422, "invalid-data"),
        ("23514", 422, "invalid-data"),
        ("22003", 422, "invalid-data"),
        ("25P03", 503, "database-unavailable"),
        ("40001", 503, "database-busy"),
        ("40P01", 503, "database-busy"),
        ("55P03", 503, "database-busy"),
        ("57014", 504, "database-timeout"),
        ("08006", 503, "database-unavailable"),
        ("53300", 503, "database-unavailable"),
        ("57P01", 503, "database-unavailable"),
        ("25006", 500, "about:blank"),
        ("42P01", 500, "about:blank"),
        (None, 500, "about:blank"),
    ],
)
def test_the_sqlstate_decides(sqlstate: str | None, status: int, type: str) -> None:
    outcome = errors.to_problem(database_error(sqlstate))
    assert (outcome.status, outcome.type) == (status, type)
    assert (outcome.retry_after is not None) == (status == 503)


@pytest.mark.parametrize(
    ("name", "sqlstate"),
    [
        ("SQLITE_CONSTRAINT_UNIQUE", "23505"),
        ("SQLITE_CONSTRAINT_PRIMARYKEY", "23505"),
        ("SQLITE_CONSTRAINT_FOREIGNKEY", "23503"),
        ("SQLITE_CONSTRAINT_NOTNULL", "23502"),
        ("SQLITE_CONSTRAINT_CHECK", "23514"),
        ("SQLITE_CONSTRAINT_DATATYPE", "22000"),
        ("SQLITE_CONSTRAINT_TRIGGER", None),
        ("SQLITE_MISMATCH", "22000"),
        ("SQLITE_TOOBIG", "22001"),
        ("SQLITE_BUSY", "40001"),
        ("SQLITE_BUSY_SNAPSHOT", "40001"),
        ("SQLITE_LOCKED_SHAREDCACHE", "40001"),
        ("SQLITE_INTERRUPT", "57014"),
        ("SQLITE_CANTOPEN_ISDIR", "08001"),
        ("SQLITE_READONLY_DBMOVED", "25006"),
        ("SQLITE_CORRUPT", None),
    ],
)
def test_an_error_of_sqlite_has_the_sqlstate_of_its_kind(
    name: str, sqlstate: str | None
) -> None:
    # Python has a number for each, unless its SQLite does not know the kind yet.
    assert hasattr(sqlite3, name) or name == "SQLITE_CONSTRAINT_DATATYPE"
    error = sqlite3.OperationalError("secret")
    error.sqlite_errorname = name
    wrapped = exc.DBAPIError("SELECT secret", None, error)
    assert errors.sqlstate(wrapped) == sqlstate


def test_a_unique_violation_is_told_from_other_conflicts() -> None:
    assert errors.is_unique_violation(database_error("23505"))
    assert not errors.is_unique_violation(database_error("23503"))


def test_a_lost_connection_is_unavailable_whatever_the_sqlstate() -> None:
    assert errors.to_problem(database_error(None, lost=True)) is errors.UNAVAILABLE
    assert errors.to_problem(ConnectionResetError()) is errors.FAILED, "whose is it?"


def test_a_commit_with_unknown_outcome_has_no_retry_after() -> None:
    outcome = errors.to_problem(errors.CommitOutcomeUnknownError())
    assert (outcome.status, outcome.type) == (503, "commit-outcome-unknown")
    assert outcome.retry_after is None


def test_a_client_is_told_whether_and_when_to_try_again() -> None:
    every = [
        each
        for each in vars(errors).values()
        if isinstance(each, errors.DatabaseProblem)
    ]
    assert {each.type: each.retry_after for each in every if each.retry_after} == {
        "database-busy": 1,
        "database-unavailable": 5,
        "migrations-pending": 5,
        "pool-exhausted": 1,
        "shutting-down": 5,
    }
    for each in every:
        is_invited = each.detail.endswith("Try again.")
        assert is_invited == (each.retry_after is not None), each
    assert errors.FAILED_AFTER_COMMIT.detail.endswith("Do not repeat it.")
    assert errors.UNKNOWN_COMMIT.detail.endswith("Check before retrying.")


def test_a_pool_timeout_is_pool_exhausted() -> None:
    assert errors.to_problem(exc.TimeoutError()) is errors.EXHAUSTED
    assert errors.to_problem(errors.PoolExhaustedError()) is errors.EXHAUSTED


@pytest.mark.parametrize(
    ("body", "status", "type"),
    [
        ({"text": "forbidden"}, 422, "invalid-data"),
        ({"text": None}, 422, "invalid-data"),
        ({"text": "taken"}, 409, "already-exists"),
        ({"text": "orphan", "parent_id": 1_000_000}, 409, "reference-conflict"),
    ],
)
def test_violated_constraints_are_problems_without_sql(
    probe: TestClient, body: dict[str, object], status: int, type: str
) -> None:
    assert probe.post("/notes", json={"text": "taken"}).status_code == 201
    response = probe.post("/notes", json=body)
    outcomes = {each.type: each for each in errors.BY_SQLSTATE.values()}
    assert response.json() == {
        "type": type,
        "title": HTTPStatus(status).phrase,
        "status": response.status_code,
        "detail": outcomes[type].detail,
        "instance": "/notes",
    }


@router.post("/{text}")
async def save_past_sqlalchemy(db: WriteDep, text: str) -> None:
    """Store the same note twice, by the driver's own means."""
    await count(session_of(db))  # begins the transaction
    connection = await session_of(db).connection()
    driver = await driver_of(connection)
    for _ in range(2):
        if connection.dialect.name == "postgresql":
            await copy_note(driver, text)
        else:
            await driver.execute("INSERT INTO test_notes (text) VALUES (?)", [text])


@pytest.mark.parametrize(
    ("text", "status", "type"),
    [("twice", 409, "already-exists"), ("forbidden", 422, "invalid-data")],
)
def test_what_the_driver_itself_raises_is_told_apart_as_well(
    notes_settings: Settings, text: str, status: int, type: str
) -> None:
    with serve_routers(notes_settings, router) as client:
        response = client.post(f"/raw/{text}")
    assert (response.status_code, response.json()["type"]) == (status, type)
    assert "notes" not in response.text


@pytest.fixture
def hasty(notes_settings: Settings) -> Iterator[TestClient]:
    """Give a client of an app whose statements end soon."""
    with serve_routers(
        notes_settings, notes_router, database_statement_timeout=0.3
    ) as client:
        yield client


def test_a_known_cause_has_one_line(
    probe: TestClient, hasty: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert probe.post("/notes", json={"text": "forbidden"}).status_code == 422
    assert hasty.get("/notes/slow").status_code == 504
    refused, slow = [each for each in caplog.records if each.name == "app"]
    for record in (refused, slow):
        assert record.exc_info is None
        assert "\n" not in record.getMessage()
    assert "POST /notes: invalid-data (SQLSTATE 23514): " in refused.getMessage()
    assert "GET /notes/slow: database-timeout (SQLSTATE 57014): " in slow.getMessage()
    assert "WITH RECURSIVE" not in slow.getMessage()


def test_an_unknown_cause_has_its_traceback(
    probe: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = probe.post("/notes/careless?in_savepoint=false", json={"text": "note"})
    assert response.status_code == 500
    (record,) = [each for each in caplog.records if each.name == "app"]
    assert record.exc_info
    assert "about:blank" not in record.getMessage()


@pytest.mark.parametrize("kind", DATABASES)
def test_a_table_is_missing_because_no_migration_was_run(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with fresh_database(kind, tmp_path) as url:
        settings = make_settings(url)
        with serve_routers(settings, notes_router, tables=[]) as client:
            caplog.clear()
            response = client.get("/notes")
            assert (response.status_code, response.json()["type"]) == (
                503,
                "migrations-pending",
            )
            assert "Retry-After" in response.headers
            (record,) = [each for each in caplog.records if each.name == "app"]
            assert record.exc_info is None
            assert "alembic upgrade head" in record.getMessage()
        upgrade(settings)
        with serve_routers(settings, notes_router, tables=[]) as client:
            response = client.get("/notes")
            assert response.status_code == 500
            assert response.json()["type"] == "about:blank"


@pytest.mark.parametrize(
    ("statement", "is_missing"),
    [
        ("SELECT * FROM no_such_table", True),
        ("SELECT no_such_column FROM test_notes", True),
        ("INSERT INTO test_notes (no_such_column) VALUES (1)", True),
        ("SELECT FROM WHERE", False),
    ],
)
async def test_what_is_missing_is_told_from_other_errors(
    database: Database, statement: str, is_missing: bool
) -> None:
    async with database.write_engine.connect() as connection:
        query = text(statement)
        with pytest.raises(exc.DBAPIError) as error:
            await connection.execute(query)
    assert errors.is_schema_missing(error.value) is is_missing


def test_a_slow_statement_is_stopped(hasty: TestClient) -> None:
    response = hasty.get("/notes/slow")
    assert response.status_code == 504
    assert response.json()["type"] == "database-timeout"
    assert hasty.get("/notes").status_code == 200


@pytest.fixture
async def die(notes_settings: Settings) -> AsyncIterator[None]:
    """Make the server end the connection that inserts `now` or commits `later`."""
    if notes_settings.is_sqlite:
        pytest.skip("SQLite has no connection to lose")
    await execute(
        notes_settings,
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER now AFTER INSERT ON test_notes"
        " FOR EACH ROW WHEN (NEW.text = 'now') EXECUTE FUNCTION die()",
        "CREATE CONSTRAINT TRIGGER later AFTER INSERT ON test_notes"
        " DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW WHEN (NEW.text = 'later') EXECUTE FUNCTION die()",
    )
    yield
    await execute(notes_settings, "DROP FUNCTION die CASCADE")


@pytest.mark.usefixtures("die")
async def test_a_connection_lost_before_the_commit_saves_nothing(
    probe: TestClient,
) -> None:
    response = probe.post("/notes", json={"text": "now"})
    assert response.status_code == 503
    assert response.json()["type"] == "database-unavailable"
    assert probe.get("/notes").text == "0"


@pytest.mark.usefixtures("die")
async def test_a_connection_lost_in_the_commit_leaves_it_unknown(
    probe: TestClient,
) -> None:
    response = probe.post("/notes", json={"text": "later"})
    assert response.status_code == 503
    assert response.json()["type"] == "commit-outcome-unknown"
    assert "Retry-After" not in response.headers
    assert probe.post("/notes", json={}).status_code == 201


@pytest.mark.usefixtures("die")
async def test_only_the_commit_itself_has_an_unknown_outcome(
    database: Database,
) -> None:
    with pytest.raises(exc.DBAPIError):
        await add_and_commit(database, Note(text="now"))
    with pytest.raises(errors.CommitOutcomeUnknownError):
        await add_and_commit(database, Note(text="later"))


async def test_waiting_for_a_lock_ends(database: Database, probe: TestClient) -> None:
    async with database.write_engine.begin() as other:
        if other.dialect.name == "postgresql":
            await other.execute(text("LOCK TABLE test_notes"))
        start = time.monotonic()
        response = probe.post("/notes", json={})
        assert time.monotonic() - start < 4, "the driver's own limit is 5 seconds"
    assert (response.status_code, response.json()["type"]) == (503, "database-busy")
    assert probe.post("/notes", json={}).status_code == 201


@pytest.fixture(params=["sqlite", "postgresql"])
def unreachable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TestClient]:
    """Give a client of an app whose database cannot be reached."""
    url = "postgresql://somebody:secret@127.0.0.1:1/nothing"
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'missing' / 'test.db'}"
{% if cookiecutter.io == 'async' %}
    others = {*threading.enumerate()}
{% endif %}
    with TestClient(create_app(make_settings(url))) as client:
        yield client
{% if cookiecutter.io == 'async' %}
        # After a failed connect, aiosqlite's thread still calls the event loop.
        for thread in {*threading.enumerate()} - others:
            if "_connection_worker_thread" in thread.name:
                thread.join(timeout=5)
{% endif %}


def test_an_unreachable_database_is_unavailable(unreachable: TestClient) -> None:
    response = unreachable.get("/health/database")
    assert response.status_code == 503
    assert response.json()["type"] == "database-unavailable"
    assert "Retry-After" in response.headers
    for word in ("127.0.0.1", "secret", "missing"):
        assert word not in response.text


def test_connecting_ends_with_the_earlier_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The start waits as well, with a timeout of its own.
    monkeypatch.setattr(health, "why_not_ready", AsyncMock())
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"postgresql://somebody@127.0.0.1:{mute.getsockname()[1]}/nothing"

        def app(pool_timeout: float, connect_timeout: float) -> FastAPI:
            return create_app(
                make_settings(
                    url,
                    database_pool_timeout=pool_timeout,
                    database_connect_timeout=connect_timeout,
                )
            )

        apps = [app(0.5, 60), app(60, 0.5)]

        def ask(number: int) -> Response:
            with TestClient(apps[number]) as client:
                return client.get("/health/database")

        start = time.monotonic()
        responses = at_once(ask, 2)
    assert [response.status_code for response in responses] == [503, 503]
    assert {each.json()["type"] for each in responses} == {"database-unavailable"}
    assert time.monotonic() - start < 10


def test_an_unreachable_database_is_not_ready(unreachable: TestClient) -> None:
    assert unreachable.get("/health/live").status_code == 200
    assert unreachable.get("/health/ready").status_code == 503


def test_a_body_over_the_limit_is_refused(probe: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    for content in (b"x" * 1_048_577, iter([b"x" * 1_048_576, b"x"])):
        response = probe.post("/notes", content=content, headers=headers)
        assert response.status_code == 413
        assert response.headers["Content-Type"] == "application/problem+json"
{% endblock %}
