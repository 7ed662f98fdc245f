"""Health, as the platform that runs the service asks for it."""

from pathlib import Path

from alembic.script import ScriptDirectory
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.config import Settings
from app.db.migrations import alembic_config, outdated_revisions
from app.main import create_app
from tests.support import make_settings


def test_the_process_is_alive(client: TestClient) -> None:
    response = client.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_a_migrated_database_is_ready(client: TestClient) -> None:
    response = client.get("/health/ready")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_pending_migrations_are_not_ready(
    client: TestClient, settings: Settings
) -> None:
    app = client.app
    assert isinstance(app, FastAPI)
    head = ScriptDirectory.from_config(alembic_config(settings)).get_current_head()
    app.state.outdated_revisions.add(head)
    response = client.get("/health/ready")
    app.state.outdated_revisions.remove(head)
    assert (response.status_code, response.json()["type"]) == (503, "not-ready")
    assert "Retry-After" in response.headers


def test_all_migrations_but_the_newest_are_outdated(settings: Settings) -> None:
    script = ScriptDirectory.from_config(alembic_config(settings))
    everything = {each.revision for each in script.walk_revisions()}
    outdated = outdated_revisions(settings)
    assert everything - outdated == {script.get_current_head()}


def test_a_database_that_is_ahead_is_ready(client: TestClient) -> None:
    app = client.app
    assert isinstance(app, FastAPI)
    outdated, app.state.outdated_revisions = app.state.outdated_revisions, {"older"}
    response = client.get("/health/ready")
    app.state.outdated_revisions = outdated
    assert response.status_code == 200


def test_an_empty_database_is_not_ready(tmp_path: Path) -> None:
    settings = make_settings(f"sqlite:///{tmp_path / 'empty.db'}")
    with TestClient(create_app(settings)) as client:
        response = client.get("/health/ready")
    assert (response.status_code, response.json()["type"]) == (503, "not-ready")


def test_development_on_sqlite_migrates_by_itself(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    settings = make_settings(url, environment="development")
    with TestClient(create_app(settings)) as client:
        assert client.get("/health/ready").status_code == 200


def test_the_database_shows_its_gauges(client: TestClient) -> None:
    response = client.get("/health/database")
    assert response.status_code == 200
    gauges = response.json()
    assert gauges.pop("latency_ms") > 0
    assert gauges.pop("checked_in") >= 0
    assert gauges == {
        "status": "ok",
        "size": 10,
        "checked_out": 1,
        "overflow": 0,
        "waiting": 0,
    }
