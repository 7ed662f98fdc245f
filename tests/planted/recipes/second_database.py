"""What the recipe on a second database promises."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient

from app.config import Settings
from app.db.base import metadata
from app.db.database import Database
from app.db.errors import CommitOutcomeUnknownError, DatabaseUnavailableError
from app.db.session import WriteSession
from app.dependencies import RouteError, WriteDep
from app.main import create_app
from app.routing import Router
from app.run import run_transaction
from app.warehouse import reporting
from app.warehouse.models import Fact, WarehouseBase
from app.warehouse.service import tell
from app.warehouse.settings import warehouse_settings
from tests.conftest import SERVER_URL, fresh_database
from tests.support import make_settings, run, run_on

PATH = "/warehouse/categories"


@pytest.fixture(params=["sqlite", "postgresql"])
def warehouse_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give a warehouse of each kind, beside a database of each kind."""
    if request.param == "postgresql" and not SERVER_URL:
        pytest.skip("there is no PostgreSQL")
    with fresh_database(request.param, tmp_path) as url:
        run(run_on, make_settings(url), WarehouseBase.metadata.create_all)
        yield url


@pytest.fixture
def both(settings: Settings, warehouse_url: str, client: TestClient) -> Any:
    """Give a client of an app with a warehouse; `client` empties the tables."""
    url = {"warehouse_url": SecretStr(warehouse_url)}
    app = create_app(settings.model_copy(update=url))
    with TestClient(app) as both:
        yield both
        for database in (app.state.database, app.state.warehouse):
            pools = database.gauges().values()
            assert [pool["checked_out"] for pool in pools] == [0, 0]
    assert client


def create(client: TestClient, name: str = "Fruit") -> Any:
    response = client.post(PATH, json={"name": name})
    assert response.status_code == 201, response.text
    return response.json()


def names(client: TestClient) -> list[str]:
    return [each["name"] for each in client.get("/categories").json()["items"]]


def test_both_are_told(both: TestClient) -> None:
    created = create(both)
    assert created == {"id": created["id"], "name": "Fruit", "is_reported": True}
    assert both.get(f"{PATH}/{created['id']}").json() is True
    assert both.get(f"{PATH}/1000000").json() is False
    assert names(both) == ["Fruit"]


def test_when_the_first_fails_the_second_hears_nothing(
    both: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(both)
    monkeypatch.delattr(reporting, "report")
    assert both.post(PATH, json={"name": "Fruit"}).status_code == 409


@pytest.mark.parametrize(
    "error", [CommitOutcomeUnknownError(), DatabaseUnavailableError()]
)
def test_when_the_second_fails_the_response_says_so(
    both: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    assert isinstance(both.app, FastAPI)
    engine = both.app.state.warehouse.write_engine
    commit = WriteSession.commit

    def fail(session: WriteSession) -> Any:
        if session.get_bind().engine is getattr(engine, "sync_engine", engine):
            raise error
        return commit(session)

    with monkeypatch.context() as broken:
        broken.setattr(WriteSession, "commit", fail)
        created = create(both)
    assert created["is_reported"] is False
    assert f"category {created['id']} was not reported" in caplog.text
    assert names(both) == ["Fruit"]
    assert both.get(f"{PATH}/{created['id']}").json() is False


def test_a_warehouse_that_is_away(settings: Settings, client: TestClient) -> None:
    url = {"warehouse_url": SecretStr("postgresql://a:b@127.0.0.1:9/none")}
    with TestClient(create_app(settings.model_copy(update=url))) as alone:
        assert create(alone)["is_reported"] is False
        assert alone.get(f"{PATH}/1").status_code == 503
        assert alone.get("/health/ready").status_code == 200
    assert names(client) == ["Fruit"]


def test_the_warehouse_is_told_again_without_harm(both: TestClient) -> None:
    assert isinstance(both.app, FastAPI)
    assert both.portal is not None
    warehouse: Database = both.app.state.warehouse
    for _ in range(2):
        both.portal.call(run_transaction, warehouse, tell, "category 7")
    assert both.get(f"{PATH}/7").json() is True


def test_its_settings_and_tables_are_its_own(settings: Settings) -> None:
    assert Fact.__table__.key not in metadata.tables  # type: ignore[attr-defined]
    own = warehouse_settings(settings)
    assert own.database_pool_size == 2
    assert own.database_lock_timeout == settings.database_lock_timeout


def test_two_sessions_at_once_are_refused(
    settings: Settings,
    warehouse_url: str,
    client: TestClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    router = Router()

    @router.post("/both-at-once")
    async def both_at_once(db: WriteDep) -> None:
        assert db
        await run_transaction(app.state.warehouse, tell, "never")

    url = {"warehouse_url": SecretStr(warehouse_url)}
    app = create_app(settings.model_copy(update=url))
    app.include_router(router)
    try:
        with TestClient(app) as both:
            assert both.post("/both-at-once").status_code == 500
        assert "SecondSessionError" in caplog.text
    except RouteError:
        pass  # a synchronous project refuses such an endpoint at the start
    assert client
