"""What the recipe on tenants promises."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from httpx2 import Response
from sqlalchemy import make_url, text
from starlette.testclient import TestClient

from app.config import Settings
from app.db.tenants import current_tenant
from app.main import create_app
from app.notes import service
from app.notes.models import Note
from app.notes.service import NoteCreate
from app.run import run_in_background, run_read, run_serializable, run_transaction
from tests.support import at_once, make_settings, recorded_statements, run, run_on

PASSWORD = "secret"
EACH = 25  # of eight clients


@pytest.fixture(scope="module")
def restricted(settings: Settings) -> Iterator[TestClient]:
    """Give a client of an app with one connection, as no superuser."""
    if settings.is_sqlite:
        pytest.skip("SQLite has no row-level security")
    role = f"role_{uuid4().hex}"
    database = settings.url.database
    privileges = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES"
    sql(settings, f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    sql(settings, f"GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {role}")
    sql(settings, f"GRANT {privileges} IN SCHEMA public TO {role}")
    sql(settings, f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
    url = make_url(settings.database_url.get_secret_value())
    url = url.set(username=role, password=PASSWORD)
    app = create_app(
        make_settings(
            url.render_as_string(hide_password=False),
            database_pool_size=1,
            database_pool_timeout=60,
        )
    )
    with TestClient(app) as client:
        yield client
        pools = app.state.database.gauges().values()
        assert [pool["checked_out"] for pool in pools] == [0, 0]
    sql(settings, f"DROP OWNED BY {role}")
    sql(settings, f"DROP ROLE {role}")


def sql(settings: Settings, statement: str) -> Any:
    def execute(connection: Any) -> Any:
        result = connection.execute(text(statement))
        return result.all() if result.returns_rows else None

    return run(run_on, settings, execute)


def add(client: TestClient, tenant: int, note: str) -> Response:
    headers = {"X-Tenant": str(tenant)}
    return client.post("/notes", json={"text": note}, headers=headers)


def read(client: TestClient, tenant: int, path: str = "/notes") -> Response:
    return client.get(path, headers={"X-Tenant": str(tenant)})


def texts(client: TestClient, tenant: int) -> list[str]:
    return [note["text"] for note in read(client, tenant).json()]


def test_tenants_are_kept_apart(restricted: TestClient) -> None:
    assert add(restricted, 1, "mine").status_code == 201
    assert add(restricted, 2, "yours").status_code == 201
    for tenant, note in ((1, "mine"), (2, "yours")):
        assert texts(restricted, tenant) == [note]
        lines = read(restricted, tenant, "/notes/export").text.splitlines()
        assert list(map(json.loads, lines)) == [{"text": note}]
    assert texts(restricted, 3) == []


def test_many_requests_on_one_connection_see_no_foreign_row(
    restricted: TestClient,
) -> None:
    for number in range(4):
        add(restricted, 1, f"1: {number}")
        add(restricted, 2, f"2: {number}")

    def ask(thread: int) -> int:
        seen = 0
        for number in range(EACH):
            tenant = 1 + (thread + number) % 2
            if number % 25 == 0:
                add(restricted, tenant, f"{tenant}: more")
            path = "/notes/export" if number % 3 == 0 else "/notes"
            response = read(restricted, tenant, path)
            assert response.status_code == 200
            assert f'"{3 - tenant}: ' not in response.text
            seen += response.text.count(f'"{tenant}: ') >= 4
        return seen

    assert sum(at_once(ask, 8)) == 8 * EACH
    assert isinstance(restricted.app, FastAPI)
    gauges = restricted.app.state.database.gauges()
    assert {pool["size"] for pool in gauges.values()} == {1}


def test_a_forgotten_tenant_sees_and_stores_nothing(restricted: TestClient) -> None:
    assert isinstance(restricted.app, FastAPI)
    database = restricted.app.state.database
    add(restricted, 1, "mine")
    assert restricted.portal is not None
    found = restricted.portal.call(run_read, database, service.list_notes)
    assert found == []
    with pytest.raises(Exception, match="no tenant"):
        restricted.portal.call(
            run_transaction, database, service.add_note, NoteCreate(text="whose?")
        )
    assert restricted.get("/notes").status_code == 422


def test_a_transaction_of_ones_own_is_the_tenants(restricted: TestClient) -> None:
    assert isinstance(restricted.app, FastAPI)
    database = restricted.app.state.database

    async def work(tenant: int) -> list[str]:
        current_tenant.set(tenant)
        note = NoteCreate(text=f"of {tenant}")
        await run_transaction(database, service.add_note, note)
        await run_serializable(database, service.add_note, note)
        await run_in_background(database, service.add_note, note)
        return [each.text for each in await run_read(database, service.list_notes)]

    assert restricted.portal is not None
    for tenant in (5, 6):
        assert restricted.portal.call(work, tenant) == [f"of {tenant}"] * 3


def test_nobody_stores_rows_for_another(
    restricted: TestClient, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    monkeypatch.setattr(service, "Note", partial(Note, tenant_id=2))
    crashing = TestClient(restricted.app, raise_server_exceptions=False)
    crashing.portal = restricted.portal
    assert add(crashing, 1, "for you").status_code == 500
    assert sql(settings, "SELECT * FROM notes WHERE text = 'for you'") == []


def test_it_costs_one_statement(restricted: TestClient) -> None:
    assert isinstance(restricted.app, FastAPI)
    database = restricted.app.state.database
    with recorded_statements(database, "SELECT", "INSERT") as sent:
        add(restricted, 1, "mine")
        read(restricted, 1)
    assert [each.split()[0] for each in sent] == ["INSERT", "SELECT"]


def test_sqlite_shows_everything_to_everybody(
    client: TestClient, settings: Settings
) -> None:
    if settings.is_sqlite:
        add(client, 1, "mine")
        add(client, 2, "yours")
        assert texts(client, 1) == ["mine", "yours"]
