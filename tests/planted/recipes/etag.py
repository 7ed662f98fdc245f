"""What the recipe on ETags promises."""

from collections import Counter
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import Response
from starlette.testclient import TestClient

from app.articles.repository import ArticleRepository
from app.db.database import Database
from tests.support import at_once, recorded_statements


def create(client: TestClient, text: str = "0") -> str:
    response = client.post("/articles", json={"text": text})
    assert (response.status_code, response.headers["ETag"]) == (201, '"1"')
    return f"/articles/{response.json()['id']}"


def put(client: TestClient, path: str, text: str, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.put(path, json={"text": text}, headers=named)


def texts(client: TestClient, path: str) -> tuple[str, str]:
    response = client.get(path)
    return response.json()["text"], response.headers["ETag"]


def test_one_of_two_changes_is_refused(client: TestClient) -> None:
    path = create(client)
    first, second = (client.get(path).headers["ETag"] for _ in range(2))
    assert put(client, path, "one", If_Match=first).headers["ETag"] == '"2"'
    assert put(client, path, "two", If_Match=second).status_code == 412
    assert texts(client, path) == ("one", '"2"')
    assert client.delete(path, headers={"If-Match": second}).status_code == 412
    assert client.delete(path, headers={"If-Match": '"2"'}).status_code == 204
    assert client.get(path).status_code == 404
    assert put(client, path, "three", If_Match="*").status_code == 404


def test_a_change_has_to_say_of_what(client: TestClient) -> None:
    path = create(client)
    assert put(client, path, "one").status_code == 428
    assert client.delete(path).status_code == 428
    assert put(client, path, "one", If_Match="*").status_code == 200
    assert put(client, path, "two", If_Match='"7", "2"').status_code == 200
    # RFC 9110 compares strongly: a weak tag matches nothing.
    assert put(client, path, "three", If_Match='W/"3"').status_code == 412
    assert put(client, path, "three", If_Match="3").status_code == 412
    assert texts(client, path) == ("two", '"3"')


def test_the_same_text_is_no_change(client: TestClient) -> None:
    path = create(client)
    assert put(client, path, "0", If_Match='"1"').headers["ETag"] == '"1"'


def test_the_fastest_of_many_wins(client: TestClient) -> None:
    path = create(client, "before")
    responses = at_once(lambda n: put(client, path, str(n), If_Match='"1"'), 8)
    assert Counter(each.status_code for each in responses) == {200: 1, 412: 7}
    (won,) = [each.json()["text"] for each in responses if each.status_code == 200]
    assert texts(client, path) == (won, '"2"')


@pytest.mark.parametrize("method", ["update", "delete"])
def test_a_change_between_reading_and_writing_is_noticed(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    path = create(client)
    change = getattr(ArticleRepository, method)

    def change_after_another(self: ArticleRepository, *args: Any) -> Any:
        # As if it had been read before another request changed it.
        args[0].__dict__["version"] = 7
        return change(self, *args)

    monkeypatch.setattr(ArticleRepository, method, change_after_another)
    if method == "update":
        response = put(client, path, "mine", If_Match='"1"')
    else:
        response = client.delete(path, headers={"If-Match": '"1"'})
    assert response.status_code == 412
    assert texts(client, path) == ("0", '"1"')


def test_no_update_is_lost(client: TestClient) -> None:
    path = create(client)

    def count_up(_: int) -> None:
        for _ in range(5):
            while True:
                text, tag = texts(client, path)
                response = put(client, path, str(int(text) + 1), If_Match=tag)
                if response.status_code == 200:
                    break
                assert response.status_code == 412, response.text

    at_once(count_up, 4)
    assert texts(client, path) == ("20", '"21"')


def test_it_costs_one_statement(client: TestClient) -> None:
    assert isinstance(client.app, FastAPI)
    database: Database = client.app.state.database
    path = create(client)
    with recorded_statements(database, "SELECT", "UPDATE") as sent:
        assert put(client, path, "one", If_Match='"1"').status_code == 200
    assert [each.split()[0] for each in sent] == ["SELECT", "UPDATE"]
