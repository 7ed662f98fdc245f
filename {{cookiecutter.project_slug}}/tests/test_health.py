"""Health, as the platform that runs the service asks for it."""

from pathlib import Path

from fastapi import FastAPI
from starlette.testclient import TestClient

from app.main import create_app
from tests.support import make_settings


def test_the_process_is_alive(client: TestClient) -> None:
    answer = client.get("/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_migrated_database_is_ready(client: TestClient) -> None:
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_pending_migrations_are_not_ready(client: TestClient) -> None:
    app = client.app
    assert isinstance(app, FastAPI)
    newest = app.state.newest_revision
    app.state.newest_revision = "one that is not applied yet"
    answer = client.get("/health/ready")
    app.state.newest_revision = newest
    assert (answer.status_code, answer.json()["type"]) == (503, "not-ready")
    assert "Retry-After" in answer.headers


def test_an_empty_database_is_not_ready(tmp_path: Path) -> None:
    settings = make_settings(f"sqlite:///{tmp_path / 'empty.db'}")
    with TestClient(create_app(settings)) as client:
        answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()["type"]) == (503, "not-ready")


def test_development_on_sqlite_migrates_by_itself(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    settings = make_settings(url, environment="development")
    with TestClient(create_app(settings)) as client:
        assert client.get("/health/ready").status_code == 200


def test_the_database_shows_its_gauges(client: TestClient) -> None:
    answer = client.get("/health/database")
    assert answer.status_code == 200
    gauges = answer.json()
    assert gauges.pop("latency_ms") > 0
    assert gauges.pop("checked_in") >= 0
    assert gauges == {
        "status": "ok",
        "size": 10,
        "checked_out": 1,
        "overflow": 0,
        "waiting": 0,
    }
