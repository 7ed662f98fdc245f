"""Health, as the platform that runs the service asks for it."""

import gc
import socket
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
from alembic.script import ScriptDirectory
from fastapi import FastAPI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sqlalchemy.exc import DBAPIError
from starlette.testclient import TestClient

from app import health, metrics
from app.config import Settings
from app.db.migrations import alembic_config, outdated_revisions
from app.db.pending import BEHIND, EMPTY
from app.health import AWAY, REFUSES
from app.main import create_app
from tests.conftest import DATABASES, fresh_database
from tests.support import make_settings


def test_the_process_is_alive(client: TestClient) -> None:
    response = client.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_a_migrated_database_is_ready(client: TestClient) -> None:
    response = client.get("/health/ready")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_pending_migrations_are_not_ready_and_logged_once(
    client: TestClient, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    app = client.app
    assert isinstance(app, FastAPI)
    head = ScriptDirectory.from_config(alembic_config(settings)).get_current_head()
    outdated = app.state.migrations.outdated
    outdated.add(head)
    responses = [client.get("/health/ready") for _ in range(3)]
    outdated.remove(head)
    for response in responses:
        assert (response.status_code, response.json()["type"]) == (503, "not-ready")
        assert response.json()["detail"] == BEHIND
        assert "Retry-After" in response.headers
    for _ in range(3):
        assert client.get("/health/ready").status_code == 200
    lines = [each.getMessage() for each in caplog.records if each.name == "app"]
    assert lines == [f"not ready: {BEHIND}", "ready"]


def test_all_migrations_but_the_newest_are_outdated(settings: Settings) -> None:
    script = ScriptDirectory.from_config(alembic_config(settings))
    everything = {each.revision for each in script.walk_revisions()}
    outdated = outdated_revisions(settings)
    assert everything - outdated == {script.get_current_head()}


def test_a_database_that_is_ahead_is_ready(client: TestClient) -> None:
    app = client.app
    assert isinstance(app, FastAPI)
    migrations = app.state.migrations
    outdated, migrations.outdated = migrations.outdated, {"older"}
    response = client.get("/health/ready")
    migrations.outdated = outdated
    assert response.status_code == 200


@pytest.mark.parametrize("kind", DATABASES)
def test_an_empty_database_is_not_ready_and_the_start_says_what_to_do(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with fresh_database(kind, tmp_path) as url:
        app = create_app(make_settings(url))
        caplog.clear()
        with TestClient(app) as client:
            assert [each.getMessage() for each in caplog.records] == [
                f"not ready: {EMPTY}"
            ]
            response = client.get("/health/ready")
    assert (response.status_code, response.json()["detail"]) == (503, EMPTY)
    assert "alembic upgrade head" in EMPTY
    assert caplog.text.count("not ready") == 1


def test_the_start_neither_fails_nor_hangs_without_the_database(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # It takes connections, and is silent.
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        settings = make_settings(f"postgresql://somebody@127.0.0.1:{port}/nothing")
        begin = time.monotonic()
        with TestClient(create_app(settings)) as client:
            assert time.monotonic() - begin < 5
            assert f"not ready: {AWAY}" in caplog.text
            server.close()
            response = client.get("/health/ready")
    assert (response.status_code, response.json()["detail"]) == (503, AWAY)
    assert caplog.text.count("not ready") == 1


def test_a_file_that_cannot_be_opened_is_a_database_that_is_away(
    tmp_path: Path,
) -> None:
    settings = make_settings(f"sqlite:///{tmp_path / 'nowhere' / 'test.db'}")
    with TestClient(create_app(settings)) as client:
        response = client.get("/health/ready")
    assert (response.status_code, response.json()["detail"]) == (503, AWAY)


@pytest.mark.parametrize(("is_lost", "reason"), [(True, AWAY), (False, REFUSES)])
def test_readiness_tells_a_database_that_is_away_from_one_that_refuses(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, is_lost: bool, reason: str
) -> None:
    app = client.app
    assert isinstance(app, FastAPI)

    async def fail() -> None:
        raise DBAPIError("SELECT", None, OSError(), connection_invalidated=is_lost)

    with monkeypatch.context() as patch:
        patch.setattr(app.state.migrations, "missing", fail)
        response = client.get("/health/ready")
    assert (response.status_code, response.json()["detail"]) == (503, reason)
    assert client.get("/health/ready").status_code == 200


def test_health_may_be_asked_by_head(client: TestClient) -> None:
    for path in ("live", "ready", "database"):
        assert client.head(f"/health/{path}").status_code == 200


def test_development_on_sqlite_migrates_by_itself(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    settings = make_settings(url, environment="development")
    with TestClient(create_app(settings)) as client:
        assert client.get("/health/ready").status_code == 200


def test_a_service_searches_for_garbage_less_often_than_python(tmp_path: Path) -> None:
    before, usual = gc.get_threshold(), (700, 10, 10)
    gc.set_threshold(*usual)
    url = f"sqlite:///{tmp_path / 'new.db'}"
    try:
        with TestClient(create_app(make_settings(url, environment="development"))):
            for set_now, default in zip(gc.get_threshold(), usual, strict=True):
                assert set_now > default
    finally:
        gc.set_threshold(*before)


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


def test_the_database_shows_its_latency_in_milliseconds(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Mock(perf_counter=iter([10.0, 10.25]).__next__)
    monkeypatch.setattr(health, "time", clock)
    assert client.get("/health/database").json()["latency_ms"] == 250


def test_a_started_app_has_its_gauges_among_the_metrics(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    with TestClient(create_app(settings)):
        measured = reader.get_metrics_data()
    assert measured is not None
    found = measured.resource_metrics[0].scope_metrics[0].metrics
    expected = {f"db.pool.{name}" for name in metrics.DESCRIPTIONS}
    assert {metric.name for metric in found} == expected
