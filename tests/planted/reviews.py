"""What the page on relationships promises of reviews."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.support import at_once
from tests.test_categories import create_category


@pytest.fixture
def path(client: TestClient) -> str:
    """Give the path of a new category."""
    return f"/categories/{create_category(client, 'Fruit')['id']}"


def review(client: TestClient, path: str, reader: str = "Ada", stars: Any = 5) -> int:
    body = {"reader": reader, "stars": stars}
    return client.post(f"{path}/reviews", json=body).status_code


def test_a_review_shows_what_it_is_of(client: TestClient, path: str) -> None:
    body = {"reader": "Ada", "stars": 4}
    response = client.post(f"{path}/reviews", json=body)
    category = client.get(path).json()
    assert response.status_code == 201
    assert response.json() == {"category": category, "stars": 4}


def test_a_missing_category_is_404(client: TestClient) -> None:
    assert review(client, "/categories/1000000") == 404
    assert client.get("/categories/1000000/rating").status_code == 404


def test_a_reader_reviews_a_category_once(client: TestClient, path: str) -> None:
    assert review(client, path) == 201
    response = client.post(f"{path}/reviews", json={"reader": "Ada", "stars": 1})
    assert (response.status_code, response.json()["type"]) == (409, "already-exists")
    assert response.json()["detail"] == "This reader has reviewed this category."


@pytest.mark.parametrize("stars", [0, 6, 1.5, "5", None])
def test_stars_are_1_to_5(client: TestClient, path: str, stars: Any) -> None:
    assert review(client, path, stars=stars) == 422


def test_a_category_shows_its_average(client: TestClient, path: str) -> None:
    category = client.get(path).json()
    rating = category | {"review_count": 0, "average_stars": None}
    assert client.get(f"{path}/rating").json() == rating
    for reader, stars in (("Ada", 5), ("Bob", 2)):
        assert review(client, path, reader, stars) == 201
    rating = category | {"review_count": 2, "average_stars": 3.5}
    assert client.get(f"{path}/rating").json() == rating


def test_a_reader_shows_all_reviews(client: TestClient, path: str) -> None:
    other = create_category(client, "Nuts")
    review(client, path, stars=4)
    review(client, f"/categories/{other['id']}", stars=1)
    shown = client.get("/readers/Ada").json()
    assert (shown["name"], shown["review_count"]) == ("Ada", 2)
    assert shown["reviews"] == [
        {"category": client.get(path).json(), "stars": 4},
        {"category": other, "stars": 1},
    ]
    assert client.get("/readers/Bob").status_code == 404


def test_a_counter_loses_nothing(client: TestClient) -> None:
    paths = [f"/categories/{create_category(client, str(n))['id']}" for n in range(8)]
    assert at_once(lambda n: review(client, paths[n]), 8) == [201] * 8
    assert client.get("/readers/Ada").json()["review_count"] == 8
    deleted = at_once(lambda n: client.delete(f"{paths[n]}/reviews/Ada"), 5)
    assert [response.status_code for response in deleted] == [204] * 5
    reader = client.get("/readers/Ada").json()
    assert (reader["review_count"], len(reader["reviews"])) == (3, 3)


def test_a_review_is_deleted_once(client: TestClient, path: str) -> None:
    review(client, path)
    deleted = at_once(lambda _: client.delete(f"{path}/reviews/Ada").status_code, 4)
    assert sorted(deleted) == [204, 404, 404, 404]
    assert client.get("/readers/Ada").json()["review_count"] == 0


def test_a_review_that_is_refused_does_not_count(client: TestClient, path: str) -> None:
    assert [review(client, path), review(client, path)] == [201, 409]
    assert client.get("/readers/Ada").json()["review_count"] == 1
