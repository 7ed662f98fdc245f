"""What the recipe on the outbox promises."""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.config import Settings
from app.db.database import Database
from app.outbox import relay
from app.outbox.models import Event
from app.outbox.relay import Relay
from app.outbox.repository import OutboxRepository
from tests.support import at_once, call, recorded_statements, run, run_on
from tests.test_categories import create_category


def database_of(client: TestClient) -> Database:
    assert isinstance(client.app, FastAPI)
    database: Database = client.app.state.database
    return database


def rename(client: TestClient, number: int, name: str) -> int:
    return client.put(f"/categories/{number}/name", json={"name": name}).status_code


class Receiver:
    """Notes the names that it is told, and refuses some keys, and some names."""

    def __init__(self, client: TestClient) -> None:
        self._client = client
        self.names: list[str] = []
        self.ids: list[int] = []
        self.refused: set[str] = set()
        self.held: set[int] = set()

    def receive(self, event: Event) -> None:
        pools = database_of(self._client).gauges().values()
        self.held |= {pool["checked_out"] for pool in pools}
        name = json.loads(event.payload)["name"]
        if {event.key, name} & self.refused:
            raise RuntimeError("not now")
        self.ids.append(event.id)
        self.names.append(name)

    def run_relay(self) -> None:
        call(self._client, Relay(database_of(self._client)).send_all)


@pytest.fixture
def receiver(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    receiver = Receiver(client)
    # What is given is a coroutine function in some projects.
    print_it = relay.deliver

    def deliver(event: Event) -> Any:
        receiver.receive(event)
        return print_it(event)

    monkeypatch.setattr(relay, "deliver", deliver)
    return receiver


def test_a_message_is_sent_once_when_nothing_fails(
    client: TestClient, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    number = create_category(client, "Fruit")["id"]
    assert rename(client, number, "Nuts") == 200
    assert rename(client, number, "Herbs") == 200
    receiver.run_relay()
    assert receiver.names == ["Nuts", "Herbs"]
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    assert [line["id"] for line in lines] == receiver.ids
    receiver.run_relay()
    assert receiver.names == ["Nuts", "Herbs"]


def test_what_is_not_saved_is_not_told(client: TestClient, receiver: Receiver) -> None:
    create_category(client, "Fruit")
    number = create_category(client, "Nuts")["id"]
    assert rename(client, number, "Fruit") == 409
    assert rename(client, 1_000_000, "Herbs") == 404
    receiver.run_relay()
    assert receiver.names == []


def test_a_message_that_cannot_be_stored_takes_the_change_back(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("no message")

    number = create_category(client, "Fruit")["id"]
    monkeypatch.setattr(OutboxRepository, "add", fail)
    crashing = TestClient(client.app, raise_server_exceptions=False)
    crashing.portal = client.portal
    assert rename(crashing, number, "Nuts") == 500
    assert client.get(f"/categories/{number}").json()["name"] == "Fruit"


def test_a_failing_message_holds_up_its_own_key_only(
    client: TestClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "BATCH", 2)
    one, other = (create_category(client, name)["id"] for name in ("1", "2"))
    for count in range(5):
        rename(client, one, f"one {count}")
    rename(client, other, "other")
    receiver.refused = {f"category {one}"}
    receiver.run_relay()
    assert receiver.names == ["other"]
    receiver.refused = set()
    receiver.run_relay()
    assert receiver.names == ["other", *(f"one {number}" for number in range(5))]


def test_later_messages_of_a_key_wait_for_one_that_fails(
    client: TestClient, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = (create_category(client, name)["id"] for name in ("1", "2"))
    for name in ("first", "second", "third"):
        rename(client, one, name)
    rename(client, other, "other")
    receiver.refused = {"second"}
    receiver.run_relay()
    assert receiver.names == ["first", "other"]
    (said,) = [each for each in caplog.records if "was not delivered" in each.message]
    assert said.exc_info is not None
    receiver.refused = set()
    receiver.run_relay()
    assert receiver.names == ["first", "other", "second", "third"]


def test_no_connection_is_held_while_a_message_is_delivered(
    client: TestClient, receiver: Receiver
) -> None:
    rename(client, create_category(client, "Fruit")["id"], "Nuts")
    receiver.run_relay()
    assert (receiver.names, receiver.held) == (["Nuts"], {0})


def test_the_relay_asks_no_replica(
    client: TestClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename(client, create_category(client, "Fruit")["id"], "Nuts")
    monkeypatch.setattr(database_of(client), "read", None)
    monkeypatch.setattr(database_of(client), "snapshot", None)
    receiver.run_relay()
    assert receiver.names == ["Nuts"]


def test_what_is_sent_and_not_removed_is_sent_again(
    client: TestClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = create_category(client, "Fruit")["id"]
    rename(client, number, "Nuts")

    def fail(*_: Any) -> Any:
        raise RuntimeError("the database is gone")

    with monkeypatch.context() as broken:
        broken.setattr(OutboxRepository, "remove", fail)
        with pytest.raises(RuntimeError, match="is gone"):
            receiver.run_relay()
    receiver.run_relay()
    assert receiver.names == ["Nuts", "Nuts"]
    assert len({*receiver.ids}) == 1


def test_two_relays_keep_the_order(client: TestClient, receiver: Receiver) -> None:
    number = create_category(client, "Fruit")["id"]
    names = [str(number) for number in range(10)]
    for name in names:
        rename(client, number, name)
    at_once(lambda _: receiver.run_relay(), 2)
    assert list(dict.fromkeys(receiver.names)) == names


def test_the_ids_of_a_key_are_in_the_order_of_its_changes(
    client: TestClient, receiver: Receiver
) -> None:
    number = create_category(client, "Fruit")["id"]
    assert at_once(lambda n: rename(client, number, str(n)), 8) == [200] * 8
    receiver.run_relay()
    last = client.get(f"/categories/{number}").json()["name"]
    assert (len(receiver.names), receiver.names[-1]) == (8, last)


WAITING = text(
    "SELECT count(*) FROM pg_locks"
    " WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
)


def test_who_renames_waits_for_who_was_first(
    client: TestClient, receiver: Receiver, settings: Settings
) -> None:
    if settings.is_sqlite:
        pytest.skip("one transaction writes at a time")
    number = create_category(client, "Fruit")["id"]
    with ThreadPoolExecutor(1) as thread:

        def rename_both(connection: Connection) -> Future[int]:
            key, payload = f"category {number}", json.dumps({"name": "Nuts"})
            connection.execute(text("UPDATE categories SET name = 'Nuts'"))
            connection.execute(
                text("INSERT INTO outbox (key, payload) VALUES (:key, :payload)"),
                {"key": key, "payload": payload},
            )
            # To the name that it has as long as this is not committed.
            renaming = thread.submit(rename, client, number, "Fruit")
            while not renaming.done() and not connection.scalar(WAITING):
                pass
            return renaming

        assert run(run_on, settings, rename_both).result() == 200
    receiver.run_relay()
    assert receiver.names == ["Nuts", "Fruit"]
    assert client.get(f"/categories/{number}").json()["name"] == "Fruit"


def test_it_costs_one_statement(client: TestClient) -> None:
    number = create_category(client, "Fruit")["id"]
    words = ("INSERT", "UPDATE", "SELECT")
    with recorded_statements(database_of(client), *words) as sent:
        rename(client, number, "Nuts")
    assert [each.split()[0] for each in sent] == ["SELECT", "UPDATE", "INSERT"]
