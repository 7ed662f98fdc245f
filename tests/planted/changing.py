"""What the page on changes promises."""

from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.categories import queries, service
from app.config import Settings
from app.main import create_app
from app.problems import NotFoundError
from app.schemas import Body
from tests.support import make_settings


def create_category(client: TestClient, name: str) -> dict[str, Any]:
    response = client.post("/v1/categories", json={"name": name})
    assert response.status_code == 201, response.text
    category: dict[str, Any] = response.json()
    return category


def names(client: TestClient) -> list[str]:
    return [each["name"] for each in client.get("/v1/categories").json()["items"]]


def test_every_error_has_the_new_member(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_category(client, "Fruit")
    responses = [
        client.get("/nowhere"),
        client.get("/v1/categories/1000000"),
        client.post("/v1/categories", json={}),
        client.post("/v1/categories", json={"name": "Fruit"}),
        client.post("/v1/categories", content=b" " * 2**21),
    ]
    monkeypatch.delattr(queries, "get_category")
    crashing = TestClient(client.app, raise_server_exceptions=False)
    crashing.portal = client.portal
    responses.append(crashing.get("/v1/categories/1"))
    statuses = [response.status_code for response in responses]
    assert statuses == [404, 404, 422, 409, 413, 500]
    for response in responses:
        assert response.json()["message"] == response.json()["detail"]
    document = client.get("/openapi.json").json()
    assert "message" in document["components"]["schemas"]["Problem"]["required"]


def test_the_paths_have_a_prefix(client: TestClient) -> None:
    paths = {*client.get("/openapi.json").json()["paths"]}
    assert {"/v1/categories", "/v1/categories/{category_id}"} < paths
    assert client.get("/categories").status_code == 404
    assert client.get("/health/live").status_code == 200
    based = TestClient(client.app, base_url="http://testserver/v1")
    based.portal = client.portal
    assert based.get("/categories").status_code == 200


def test_names_are_in_camel_case(client: TestClient) -> None:
    page = client.get("/v1/categories").json()
    assert page == {"items": [], "limit": 50, "offset": 0, "hasMore": False}

    class Named(Body):
        full_name: str

    class Shown(BaseModel):
        model_config = ConfigDict(
            from_attributes=True, alias_generator=to_camel, validate_by_name=True
        )
        full_name: str

    assert Named.model_validate({"fullName": "Ada"}).full_name == "Ada"
    with pytest.raises(ValidationError):
        Named.model_validate({"full_name": "Ada"})
    shown = Shown.model_validate(SimpleNamespace(full_name="Ada"))
    assert shown.model_dump(by_alias=True) == {"fullName": "Ada"}


def test_the_setting_is_taken(client: TestClient) -> None:
    for name in ("Fruit", "Nuts"):
        create_category(client, name)
    assert isinstance(client.app, FastAPI)
    settings: Settings = client.app.state.settings
    assert settings.categories_shown == 20
    fewer = settings.model_copy(update={"categories_shown": 1})
    with (
        TestClient(create_app(fewer)) as other,
        other.websocket_connect("/talk") as socket,
    ):
        assert socket.receive_json() == ["Fruit"]
    with pytest.raises(ValidationError):
        make_settings("sqlite:///test.db", categories_shown=0)


def test_a_socket_goes_on_after_an_error(client: TestClient) -> None:
    create_category(client, "Fruit")
    said = []
    with client.websocket_connect("/talk") as socket:
        assert socket.receive_json() == ["Fruit"]
        for message in ('{"name": "Fruit"}', '{"name": ""}', "[", '{"name": "Nuts"}'):
            socket.send_text(message)
            said.append(socket.receive_json())
    assert said == [
        {"error": "This name is taken."},
        {"error": "The message does not fit its schema."},
        {"error": "The message does not fit its schema."},
        {"added": "Nuts"},
    ]
    assert names(client) == ["Fruit", "Nuts"]


def test_nothing_is_held_between_messages(client: TestClient) -> None:
    assert isinstance(client.app, FastAPI)
    with client.websocket_connect("/talk") as socket:
        socket.receive_json()
        gauges = client.app.state.database.gauges().values()
        assert sum(pool["checked_out"] for pool in gauges) == 0


def test_a_client_that_leaves_is_no_error(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = Event()

    async def leave(*_: Any) -> None:
        left.set()
        raise WebSocketDisconnect(1006)

    with client.websocket_connect("/talk") as socket:
        socket.receive_json()
        monkeypatch.setattr(WebSocket, "send_json", leave)
        socket.send_text('{"name": "Fruit"}')
        assert left.wait(10)
    assert names(client) == ["Fruit"]


def test_an_error_that_nobody_catches_closes_the_socket(
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with client.websocket_connect("/talk") as socket:
        socket.receive_json()
        socket.send_text('{"name": "Fruit"}')
        assert socket.receive_json() == {"added": "Fruit"}

        def fail(*_: Any) -> Any:
            raise NotFoundError("There is no such thing.")

        monkeypatch.setattr(service, "create_category", fail)
        socket.send_text('{"name": "Nuts"}')
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
    assert closed.value.code == 1011
    assert "WebSocket /talk failed" in caplog.text
    assert names(client) == ["Fruit"]
