"""What the recipe on idempotency keys promises."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from httpx2 import Response
from starlette.testclient import TestClient

from app.categories.repository import CategoryRepository
from app.config import Settings
from app.db.database import Database
from app.idempotency import expiring
from tests.support import at_once, recorded_statements, run
from tests.test_categories import create_category


def post(client: TestClient, key: str, name: str = "Fruit") -> Response:
    headers = {"Idempotency-Key": key}
    return client.post("/categories/once", json={"name": name}, headers=headers)


def names(client: TestClient) -> list[str]:
    return [each["name"] for each in client.get("/categories").json()["items"]]


@pytest.fixture
def key() -> str:
    return str(uuid4())


def database_of(client: TestClient) -> Database:
    assert isinstance(client.app, FastAPI)
    database: Database = client.app.state.database
    return database


def test_a_repeated_request_gets_the_first_response(
    client: TestClient, key: str
) -> None:
    first = post(client, key)
    assert first.status_code == 201
    assert first.json() == client.get(f"/categories/{first.json()['id']}").json()
    again = post(client, key)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["Content-Type"] == "application/json"
    assert names(client) == ["Fruit"]


def test_many_at_once_are_done_once(client: TestClient, key: str) -> None:
    responses = at_once(lambda _: post(client, key), 8)
    assert {response.status_code for response in responses} == {201}
    assert len({response.content for response in responses}) == 1
    assert names(client) == ["Fruit"]


def test_other_keys_do_other_work(client: TestClient, key: str) -> None:
    assert post(client, key, "Nuts").status_code == 201
    assert post(client, f"{key}-2", "Herbs").status_code == 201
    assert names(client) == ["Nuts", "Herbs"]


def test_a_key_belongs_to_one_request(client: TestClient, key: str) -> None:
    assert post(client, key).status_code == 201
    response = post(client, key, "Nuts")
    assert response.status_code == 422
    assert response.json()["detail"] == "This key belongs to another request."
    assert names(client) == ["Fruit"]


@pytest.mark.parametrize("wrong", [{}, "", "x" * 256, "ä", "two words"])
def test_a_key_is_needed(client: TestClient, wrong: Any) -> None:
    headers = {} if wrong == {} else {"Idempotency-Key": wrong.encode()}
    response = client.post("/categories/once", json={"name": "a"}, headers=headers)
    assert (response.status_code, response.json()["type"]) == (422, "validation-error")
    assert names(client) == []


def test_what_is_refused_does_not_use_the_key_up(client: TestClient, key: str) -> None:
    fruit = create_category(client, "Fruit")
    response = post(client, key)
    assert (response.status_code, response.json()["type"]) == (409, "already-exists")
    assert names(client) == [fruit["name"]]
    assert post(client, key, "Nuts").status_code == 201


def test_an_error_after_the_work_saves_neither(
    client: TestClient, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = CategoryRepository.add

    def fail(*_: Any) -> Any:
        raise RuntimeError("after the key was claimed")

    monkeypatch.setattr(CategoryRepository, "add", fail)
    crashing = TestClient(client.app, raise_server_exceptions=False)
    crashing.portal = client.portal
    assert post(crashing, key).status_code == 500
    monkeypatch.setattr(CategoryRepository, "add", add)
    assert post(client, key).status_code == 201
    assert names(client) == ["Fruit"]


def test_keys_expire(
    client: TestClient, key: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiring, "load_settings", lambda: settings)
    assert post(client, key).status_code == 201
    run(expiring.main)
    assert post(client, key, "Nuts").status_code == 422
    monkeypatch.setattr(expiring, "LIFETIME", timedelta(0))
    run(expiring.main)
    assert post(client, key, "Nuts").status_code == 201
    assert names(client) == ["Fruit", "Nuts"]


def test_it_costs_two_statements(client: TestClient, key: str) -> None:
    with recorded_statements(database_of(client), "INSERT", "UPDATE", "SELECT") as sent:
        post(client, key)
    assert [each.split()[0] for each in sent] == ["INSERT", "INSERT", "UPDATE"]
    with recorded_statements(database_of(client), "INSERT", "UPDATE", "SELECT") as sent:
        post(client, key)
    assert [each.split()[0] for each in sent] == ["INSERT", "SELECT"]
