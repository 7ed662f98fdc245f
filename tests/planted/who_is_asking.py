"""What the page on users promises."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import anyio
import jwt
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.db.database import Database
from app.users import passwords
from app.users.tokens import Tokens
from tests.factories import sign_in
from tests.support import make_settings, recorded_selects
from tests.test_users import ADA

# One for each kind of session that a user is read with.
FOR_USERS = [("GET", "/users/me"), ("GET", "/users"), ("DELETE", "/users/me")]


def database_of(client: TestClient) -> Database:
    assert isinstance(client.app, FastAPI)
    database: Database = client.app.state.database
    return database


def forge(key: str = "k" * 32, **claims: Any) -> str:
    soon = datetime.now(UTC) + timedelta(minutes=1)
    return jwt.encode({"sub": "1", "exp": soon} | claims, key, "HS256")


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", forge(), forge(sub="x")])
def test_a_wrong_token_is_refused_before_a_slot_is_waited_for(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    for admission in ("read_admission", "write_admission"):
        monkeypatch.setattr(database_of(client), admission, None)
    for method, path in FOR_USERS:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        response = client.request(method, path, headers=headers)
        assert response.status_code == 401, path
        assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_token_ends_and_has_what_it_needs() -> None:
    key = "k" * 32
    tokens = Tokens(make_settings("sqlite:///test.db", secret_key=key))
    assert tokens.user_id(tokens.issue(7)) == 7
    past = datetime.now(UTC) - timedelta(seconds=1)
    for wrong in (forge(key, exp=past), forge(key, exp=None), forge("x" * 32)):
        with pytest.raises(Exception, match="wrong, or has expired"):
            tokens.user_id(wrong)


def test_production_needs_a_key() -> None:
    settings = make_settings("sqlite:///test.db", environment="production")
    with pytest.raises(SystemExit, match="SECRET_KEY"):
        Tokens(settings)


def test_anybody_may_ask_and_who_has_a_token_is_known(
    client: TestClient, signed_in: TestClient
) -> None:
    email = signed_in.get("/users/me").json()["email"]
    with recorded_selects(database_of(client)) as selects:
        assert client.get("/users/greeting").json() == "Hello, stranger!"
    assert selects == []
    assert signed_in.get("/users/greeting").json() == f"Hello, {email}!"


def test_a_wrong_token_is_refused_where_none_is_needed(
    client: TestClient, signed_in: TestClient
) -> None:
    headers = {"Authorization": f"Bearer {forge()}"}
    assert client.get("/users/greeting", headers=headers).status_code == 401
    assert signed_in.delete("/users/me").status_code == 204
    assert signed_in.get("/users/greeting").status_code == 401


def test_user_and_endpoint_share_a_session(signed_in: TestClient) -> None:
    with recorded_selects(database_of(signed_in)) as selects:
        assert signed_in.get("/users/me").status_code == 200
        assert signed_in.delete("/users/me").status_code == 204
    assert len(selects) == 2


class LookingHasher:
    """Looks around while a password is hashed or verified."""

    def __init__(self, look: Callable[[], object]) -> None:
        self.look = look

    def hash(self, _password: str) -> str:
        self.look()
        return "hash"

    def verify(self, _hash: str, _password: str) -> bool:
        self.look()
        return True


def test_nothing_is_held_while_a_password_is_hashed(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    def look() -> None:
        gauges = database_of(client).gauges().values()
        held.append(sum(pool["checked_out"] for pool in gauges))

    monkeypatch.setattr(passwords, "_hasher", LookingHasher(look))
    assert client.post("/users", json=ADA).status_code == 201
    assert client.post("/auth/token", json=ADA).status_code == 200
    assert held == [0, 0]


async def test_waiting_for_a_hash_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Event()
    monkeypatch.setattr(passwords, "_hasher", LookingHasher(refused.wait))
    settings = make_settings("sqlite:///test.db", database_pool_timeout=0.1)
    impatient = passwords.Passwords(settings)
    async with anyio.create_task_group() as tasks:
        for _ in range(passwords.AT_ONCE):
            tasks.start_soon(impatient.hash, ADA["password"])
        await anyio.wait_all_tasks_blocked()
        try:
            with anyio.fail_after(10), pytest.raises(passwords.HashingBusyError):
                await impatient.hash(ADA["password"])
        finally:
            refused.set()


def test_who_cannot_be_hashed_for_gets_503(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise passwords.HashingBusyError("full")

    monkeypatch.setattr(passwords, "_hasher", LookingHasher(refuse))
    for path in ("/users", "/auth/token"):
        response = client.post(path, json=ADA)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")


def test_a_password_is_hashed_and_never_returned(client: TestClient) -> None:
    responses = [client.post("/users", json=ADA), client.post("/users", json=ADA)]
    assert [response.status_code for response in responses] == [201, 409]
    assert responses[1].json()["detail"] == "This e-mail address is taken."
    said = "".join(response.text for response in responses)
    assert ADA["password"] not in said
    assert "argon2" not in said


@pytest.mark.parametrize(
    "wrong",
    [{"password": "short"}, {"password": "\ud800" * 8}, {"email": "nobody"}],
    ids=range(3),
)
def test_hostile_credentials_are_422(client: TestClient, wrong: dict[str, str]) -> None:
    body = str(ADA | wrong).replace("'", '"')
    headers = {"Content-Type": "application/json"}
    for path in ("/users", "/auth/token"):
        response = client.post(path, content=body, headers=headers)
        assert response.status_code == 422


def test_several_are_signed_in(client: TestClient) -> None:
    one, other = sign_in(client), sign_in(client)
    assert one.get("/users/me").json() != other.get("/users/me").json()
