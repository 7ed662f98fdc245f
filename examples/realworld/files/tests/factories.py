"""Users and articles to test with, and hashing that takes no time."""

from collections.abc import Callable
from typing import Any

import pytest
from argon2 import PasswordHasher
from starlette.testclient import TestClient

from app.users import passwords

CHEAP_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

SignUp = Callable[[str], TestClient]


@pytest.fixture(autouse=True)
def cheap_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords in no time, which only tests want."""
    monkeypatch.setattr(passwords, "_hasher", CHEAP_HASHER)


@pytest.fixture
def sign_up(client: TestClient) -> SignUp:
    """Give what registers somebody, and gives a client that is signed in."""

    def sign_up(name: str) -> TestClient:
        user = {"username": name, "email": f"{name}@a.example", "password": "password"}
        response = client.post("/api/users", json={"user": user})
        assert response.status_code == 201, response.text
        headers = {"Authorization": f"Token {response.json()['user']['token']}"}
        signed_in = TestClient(client.app, "http://testserver/api", headers=headers)
        signed_in.portal = client.portal
        signed_in.event_hooks = client.event_hooks
        return signed_in

    return sign_up


def write_article(author: TestClient, **fields: Any) -> dict[str, Any]:
    """Return an article that somebody has written."""
    article = {"title": "Dragons", "description": "How?", "body": "So.", **fields}
    response = author.post("/articles", json={"article": article})
    assert response.status_code == 201, response.text
    written: dict[str, Any] = response.json()["article"]
    return written
