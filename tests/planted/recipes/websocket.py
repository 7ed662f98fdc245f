"""What the recipe on WebSockets promises."""

from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from app.categories import live, service
from app.db.database import Database
from app.db.errors import CommitOutcomeUnknownError
from app.problems import ConflictError
from tests.support import at_once
from tests.test_categories import create_category

TOKEN = "said first"


@pytest.fixture(autouse=True)
def token(client: TestClient) -> None:
    assert isinstance(client.app, FastAPI)
    client.app.state.live_token = SecretStr(TOKEN)


def names(client: TestClient) -> list[str]:
    return [each["name"] for each in client.get("/categories").json()["items"]]


def say(client: TestClient, *messages: Any, token: str = TOKEN) -> list[Any]:
    with client.websocket_connect("/live") as socket:
        socket.send_text(token)
        responses = []
        for message in messages:
            socket.send_json(message)
            responses.append(socket.receive_json())
        return responses


def test_each_message_is_saved(client: TestClient) -> None:
    responses = say(client, {"name": "Fruit"}, {"name": "Nuts"})
    assert [client.get(f"/categories/{each['id']}").json() for each in responses] == [
        {"id": each["id"], "name": name}
        for each, name in zip(responses, ("Fruit", "Nuts"), strict=True)
    ]


@pytest.mark.parametrize("wrong", ["", "another", "said first ", "\0"])
def test_who_is_not_known_is_refused(client: TestClient, wrong: str) -> None:
    with pytest.raises(WebSocketDisconnect) as refused:
        say(client, {"name": "Fruit"}, token=wrong)
    assert refused.value.code == 1008
    assert names(client) == []


def test_without_a_setting_nobody_is_known(client: TestClient) -> None:
    assert isinstance(client.app, FastAPI)
    client.app.state.live_token = SecretStr("")
    with pytest.raises(WebSocketDisconnect):
        say(client, {"name": "Fruit"}, token="")


@pytest.mark.parametrize("which", ["PATIENCE", "IDLE"])
def test_who_says_nothing_is_left(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    monkeypatch.setattr(live, which, 0.01)
    with client.websocket_connect("/live") as socket:
        if which == "IDLE":
            socket.send_text(TOKEN)
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
    assert closed.value.code == 1008


def test_a_message_that_fails_does_not_end_the_talk(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_category(client, "Fruit")
    taken = {"error": "This name is taken.", "again": False}
    unfit = {"error": "The message does not fit its schema.", "again": False}
    responses = say(client, {"name": "Fruit"}, {"name": 1}, {"name": "Nuts"})
    assert responses[:2] == [taken, unfit]
    assert names(client) == ["Fruit", "Nuts"]
    for error, detail in (
        (ConflictError("Not today."), "Not today."),
        (CommitOutcomeUnknownError(), "The connection was lost while saving: it may"),
    ):
        # Not a coroutine function, as some projects have it; raising is the same.
        def fail(*_: Any, error: Exception = error) -> Any:
            raise error

        with monkeypatch.context() as broken:
            broken.setattr(service, "create_category", fail)
            (response,) = say(client, {"name": "Herbs"})
        assert response["error"].startswith(detail)
        assert response["again"] is False


def test_a_bug_is_not_told_as_a_refusal(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise LookupError("a bug")

    monkeypatch.setattr(service, "create_category", fail)
    with pytest.raises(LookupError):
        say(client, {"name": "Fruit"})
    assert names(client) == []


def test_a_socket_that_waits_holds_nothing(client: TestClient) -> None:
    assert isinstance(client.app, FastAPI)
    database: Database = client.app.state.database
    with client.websocket_connect("/live") as socket:
        socket.send_text(TOKEN)
        socket.send_json({"name": "Fruit"})
        socket.receive_json()
        assert sum(pool["checked_out"] for pool in database.gauges().values()) == 0


def test_a_full_pool_is_told_and_passes(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(client.app, FastAPI)
    database: Database = client.app.state.database
    admission = database.write_admission
    assert client.portal is not None

    async def take_all() -> list[Any]:
        held = [admission for _ in range(5)]
        for each in held:
            await each.__aenter__()
        return held

    async def give_back(held: list[Any]) -> None:
        for each in held:
            await each.__aexit__(None, None, None)

    monkeypatch.setattr(admission, "_timeout", 0.01)
    held = client.portal.call(take_all)
    try:
        (response,) = say(client, {"name": "Fruit"})
    finally:
        client.portal.call(give_back, held)
    assert response == {
        "error": "The service is at capacity. Try again.",
        "again": True,
    }
    (response,) = say(client, {"name": "Fruit"})
    assert "id" in response


def test_sockets_share_the_pool(client: TestClient) -> None:
    def talk(number: int) -> list[Any]:
        return say(client, {"name": f"{number} a"}, {"name": f"{number} b"})

    responses = at_once(talk, 20)
    assert len({each["id"] for pair in responses for each in pair}) == 40
    assert len(names(client)) == 40
