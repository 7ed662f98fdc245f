"""Settings: a wrong one stops the start with one clear line."""

import json
import logging
import re

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from app.config import ROOT, Settings, load_settings
from app.db.database import Database
from app.logs import logger
from app.main import create_app
from tests.support import make_settings

SQLITE = "sqlite:///test.db"
POSTGRESQL = "postgresql://user:hunter2@host/name"


@pytest.mark.parametrize(
    ("url", "setting", "value"),
    [
        (SQLITE, "database_pooler", "transaction"),
        (SQLITE, "database_replica_url", POSTGRESQL),
        (SQLITE, "database_migration_url", POSTGRESQL),
        (POSTGRESQL, "database_replica_url", SQLITE),
        (POSTGRESQL, "database_migration_url", SQLITE),
        (POSTGRESQL, "database_replica_url", "no url"),
        (POSTGRESQL, "database_replica_url", "mysql://host/name"),
        ("", "environment", "test"),
        ("sqlite://", "environment", "test"),
        ("sqlite:///:memory:", "environment", "test"),
        ("sqlite:///file:test?mode=memory&uri=true", "environment", "test"),
        ("mysql://host/name", "environment", "test"),
        ("no url", "environment", "test"),
        (POSTGRESQL, "environment", "staging"),
        (POSTGRESQL, "database_pool_size", 0),
        (POSTGRESQL, "database_max_overflow", -1),
        (POSTGRESQL, "database_pool_timeout", -1),
        (POSTGRESQL, "database_pool_timeout", 86_401),
        (POSTGRESQL, "database_statement_timeout", "NaN"),
        (POSTGRESQL, "database_lock_timeout", 30),
        (POSTGRESQL, "database_pooler", "session"),
        (POSTGRESQL, "max_body_size", 0),
        (POSTGRESQL, "log_level", "LOUD"),
        (POSTGRESQL, "log_format", "xml"),
    ],
)
def test_what_cannot_work_is_refused(url: str, setting: str, value: object) -> None:
    with pytest.raises(ValidationError):
        make_settings(url, **{setting: value})


@pytest.mark.parametrize(
    ("name", "value"), [("DATABASE_POOL_SIZE", "many"), ("DATABASE_URL", "")]
)
def test_a_wrong_value_stops_the_start_with_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", POSTGRESQL)
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stop:
        load_settings()
    message = str(stop.value)
    assert f"{name}: " in message
    assert "hunter2" not in message
    assert "\n" not in message


def test_production_serves_only_a_database_that_was_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(SystemExit, match="DATABASE_URL must be set in production"):
        load_settings()
    monkeypatch.setenv("DATABASE_URL", SQLITE)
    assert load_settings().is_sqlite


def test_what_may_be_empty_is_not_set() -> None:
    settings = make_settings(
        POSTGRESQL, database_replica_url="", database_migration_url=""
    )
    assert settings.url_of("database_replica_url") == settings.url


def test_every_setting_has_its_line_in_the_docs() -> None:
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|,]+)", page, re.MULTILINE)
    names = [name.upper() for name in Settings.model_fields]
    assert [name for name, _ in rows] == names
    for name, described in rows:
        default = getattr(make_settings(SQLITE), name.lower())
        if isinstance(default, int | float):
            assert json.loads(described.strip(" `")) == default, name


def test_the_level_of_the_log_is_set(settings: Settings) -> None:
    before = logger.level
    try:
        create_app(settings.model_copy(update={"log_level": "ERROR"}))
        assert logger.level == logging.ERROR
    finally:
        logger.setLevel(before)


def test_the_environment_decides_the_size_of_the_pool() -> None:
    assert make_settings(POSTGRESQL).database_pool_size == 5
    production = make_settings(POSTGRESQL, environment="production")
    assert production.database_pool_size == 10
    # Four processes fit into PostgreSQL's default of 100, of which 3 are reserved.
    pool = production.database_pool_size + production.database_max_overflow
    assert 4 * (2 * pool + 1) <= 97


def test_what_the_environment_lacks_is_read_from_a_file() -> None:
    # No test writes one: it would be the owner's.
    assert Settings.model_config["env_file"] == ROOT / ".env"


def test_no_secret_is_printed() -> None:
    settings = make_settings(POSTGRESQL)
    assert "hunter2" not in f"{settings!r} {settings.url!r} {settings.url}"


def test_the_smallest_and_the_longest_are_taken() -> None:
    settings = make_settings(
        POSTGRESQL, database_pool_size=1, max_body_size=1, database_pool_timeout=86_400
    )
    assert (settings.database_pool_size, settings.max_body_size) == (1, 1)
    assert settings.database_pool_timeout == 86_400


def test_fractions_of_a_second_and_0_are_taken() -> None:
    settings = make_settings(
        POSTGRESQL, database_statement_timeout=0, database_lock_timeout=0.25
    )
    assert settings.database_statement_timeout == 0
    assert settings.database_lock_timeout == 0.25


def test_only_origins_that_are_set_may_call() -> None:
    settings = make_settings(SQLITE, cors_origins=["https://a.example"])
    client = TestClient(create_app(settings))
    allowed = client.get("/health/live", headers={"Origin": "https://a.example"})
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://a.example"
    refused = client.get("/health/live", headers={"Origin": "https://b.example"})
    assert "Access-Control-Allow-Origin" not in refused.headers


def test_a_refused_preflight_is_a_problem_with_an_id() -> None:
    settings = make_settings(SQLITE, cors_origins=["https://a.example"])
    client = TestClient(create_app(settings))
    asks = {"Origin": "https://b.example", "Access-Control-Request-Method": "GET"}
    answer = client.options("/health/live", headers=asks)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "Origin" in answer.headers["Vary"]
    assert len(answer.headers["X-Request-ID"]) == 32
    assert answer.json() == {
        "type": "cors-refused",
        "title": "Bad Request",
        "status": 400,
        "detail": "Disallowed CORS origin.",
        "instance": "/health/live",
    }
    allowed = client.options(
        "/health/live", headers=asks | {"Origin": "https://a.example"}
    )
    assert allowed.status_code == 200


def test_a_database_takes_settings_not_a_url() -> None:
    with pytest.raises(TypeError, match="Database takes Settings, not str"):
        Database(SQLITE)  # type: ignore[arg-type]


def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://a.example, https://b.example")
    assert Settings().cors_origins == ["https://a.example", "https://b.example"]
