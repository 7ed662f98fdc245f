"""Conduit, as a client meets it, beyond what RealWorld's collection looks at."""

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.factories import SignUp, write_article
from tests.support import at_once, recorded_selects


def titles(client: TestClient, path: str, **query: object) -> list[str]:
    response = client.get(path, params={key: str(query[key]) for key in query})
    assert response.status_code == 200, response.text
    return [article["title"] for article in response.json()["articles"]]


def messages(response: Any) -> list[str]:
    return [*response.json()["errors"]["body"]]


def test_only_the_right_password_signs_in(client: TestClient, sign_up: SignUp) -> None:
    sign_up("ada")
    ada = {"email": "ADA@a.example", "password": "password"}
    user = client.post("/api/users/login", json={"user": ada}).json()["user"]
    assert (user["username"], user["email"]) == ("ada", "ada@a.example")
    for wrong in ({"password": "passwore"}, {"email": "bob@a.example"}):
        response = client.post("/api/users/login", json={"user": ada | wrong})
        assert response.status_code == 401
        assert messages(response) == ["email or password is invalid"]


def test_a_taken_name_is_refused_by_the_database(
    client: TestClient, sign_up: SignUp
) -> None:
    sign_up("ada")
    again = {"username": "ada", "email": "a@a.example", "password": "password"}
    response = client.post("/api/users", json={"user": again})
    assert response.status_code == 409
    assert messages(response) == ["username has already been taken"]


def test_each_wrong_field_is_named(client: TestClient) -> None:
    response = client.post("/api/users", json={"user": {"email": "ada"}})
    assert response.status_code == 422
    names = [message.partition(": ")[0] for message in messages(response)]
    assert names == ["username", "email", "password"]


def test_what_a_user_leaves_out_stays(sign_up: SignUp) -> None:
    ada = sign_up("ada")
    change = {"user": {"bio": "Writes.", "password": "secret12"}}
    changed = ada.put("/user", json=change)
    assert changed.json()["user"]["bio"] == "Writes."
    changed = ada.put("/user", json={"user": {"image": "a.png", "token": "ignored"}})
    user = changed.json()["user"]
    assert (user["username"], user["bio"], user["image"]) == ("ada", "Writes.", "a.png")
    login = {"email": "ada@a.example", "password": "secret12"}
    assert ada.post("/users/login", json={"user": login}).status_code == 200


@pytest.mark.parametrize("sent", [None, "Bearer x.y.z", "Token x.y.z", "Token"])
def test_without_a_token_it_is_401(client: TestClient, sent: str | None) -> None:
    headers = {"Authorization": sent} if sent else {}
    response = client.get("/api/articles/feed", headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Token"


def test_the_feed_has_the_articles_of_those_whom_one_follows(sign_up: SignUp) -> None:
    ada, bob, eve = (sign_up(name) for name in ("ada", "bob", "eve"))
    for title in ("One", "Two", "Three"):
        write_article(ada, title=title)
        write_article(eve, title=f"Not {title}")
    for _ in range(2):
        profile = bob.post("/profiles/ada/follow").json()["profile"]
        assert profile["following"] is True
    assert titles(bob, "/articles/feed", limit=2) == ["Three", "Two"]
    assert titles(bob, "/articles/feed", limit=2, offset=2) == ["One"]
    assert bob.get("/articles/feed").json()["articlesCount"] == 3
    (newest,) = bob.get("/articles", params={"author": "ada", "limit": 1}).json()[
        "articles"
    ]
    assert newest["author"]["following"] is True
    for _ in range(2):
        profile = bob.delete("/profiles/ada/follow").json()["profile"]
        assert profile["following"] is False
    assert titles(bob, "/articles/feed") == []


def test_articles_are_found_by_tag_author_and_fan(sign_up: SignUp) -> None:
    ada, bob = sign_up("ada"), sign_up("bob")
    liked = write_article(ada, title="Liked", tagList=["b", "a", "b"])
    write_article(bob, title="Other", tagList=["b"])
    assert liked["tagList"] == ["a", "b"]
    bob.post(f"/articles/{liked['slug']}/favorite")
    assert titles(ada, "/articles") == ["Other", "Liked"]
    assert titles(ada, "/articles", tag="a") == ["Liked"]
    assert titles(ada, "/articles", tag="b", author="bob") == ["Other"]
    assert titles(ada, "/articles", favorited="bob") == ["Liked"]
    assert titles(ada, "/articles", favorited="ada") == []
    assert ada.get("/tags").json() == {"tags": ["a", "b"]}


def test_a_list_takes_three_statements_for_any_number_of_articles(
    client: TestClient, sign_up: SignUp
) -> None:
    app = client.app
    assert isinstance(app, FastAPI)
    for name in ("ada", "bob", "eve"):
        write_article(sign_up(name), tagList=[name, "all"])
    for limit in (1, 3):
        with recorded_selects(app.state.database) as selects:
            assert len(titles(client, "/api/articles", limit=limit)) == limit
        assert len(selects) == 3


def test_an_article_takes_one_statement(client: TestClient, sign_up: SignUp) -> None:
    app = client.app
    assert isinstance(app, FastAPI)
    slug = write_article(sign_up("ada"), tagList=["a", "b"])["slug"]
    with recorded_selects(app.state.database) as selects:
        article = client.get(f"/api/articles/{slug}").json()["article"]
    assert article["tagList"] == ["a", "b"]
    assert len(selects) == 1


def test_no_favorite_is_lost_or_counted_twice(sign_up: SignUp) -> None:
    fans = [sign_up(f"fan{number}") for number in range(6)]
    written = write_article(fans[0])
    path = f"/articles/{written['slug']}/favorite"

    def like(number: int) -> int:
        return fans[number // 2].post(path).status_code  # each of them twice

    assert at_once(like, 12) == [200] * 12
    seen = fans[0].get(f"/articles/{written['slug']}").json()["article"]
    assert (seen["favorited"], seen["favoritesCount"]) == (True, 6)
    # To be liked is no change of the text.
    assert seen["updatedAt"] == written["updatedAt"]
    for _ in range(2):
        article = fans[0].delete(path).json()["article"]
        assert (article["favorited"], article["favoritesCount"]) == (False, 5)


def test_a_title_and_its_slug_change_together(sign_up: SignUp) -> None:
    ada = sign_up("ada")
    old = write_article(ada, title="Feed")["slug"]
    assert write_article(ada, title="Feed")["slug"] != old
    change = {"article": {"body": "Longer.", "title": "Feed"}}
    same = ada.put(f"/articles/{old}", json=change).json()["article"]
    assert (same["slug"], same["body"], same["title"]) == (old, "Longer.", "Feed")
    change = {"article": {"title": "A new one!"}}
    new = ada.put(f"/articles/{old}", json=change).json()["article"]
    assert new["slug"].startswith("a-new-one-")
    assert ada.get(f"/articles/{old}").status_code == 404
    assert ada.get(f"/articles/{new['slug']}").json()["article"] == new


def test_what_is_anothers_is_403_and_what_is_not_there_404(sign_up: SignUp) -> None:
    ada, bob = sign_up("ada"), sign_up("bob")
    path = f"/articles/{write_article(ada)['slug']}"
    comment = {"comment": {"body": "Thank you."}}
    said = ada.post(f"{path}/comments", json=comment).json()["comment"]
    ours = [path, f"{path}/comments/{said['id']}"]
    for each in ours:
        assert bob.delete(each).status_code == 403
    assert bob.put(path, json={"article": {"body": "No."}}).status_code == 403
    assert bob.get(path).json()["article"]["body"] == "So."
    nothing = ["/articles/none", f"{path}/comments/1000000"]
    nothing.append("/articles/none/favorite")
    for each in nothing:
        response = ada.delete(each)
        assert response.status_code == 404
        assert len(messages(response)) == 1


def test_with_an_article_goes_all_that_refers_to_it(sign_up: SignUp) -> None:
    ada = sign_up("ada")
    path = f"/articles/{write_article(ada, tagList=['a'])['slug']}"
    comment = {"comment": {"body": "Thank you."}}
    said = ada.post(f"{path}/comments", json=comment).json()["comment"]
    assert said["author"]["username"] == "ada"
    assert ada.get(f"{path}/comments").json() == {"comments": [said]}
    assert ada.post(f"{path}/favorite").json()["article"]["favoritesCount"] == 1
    assert ada.delete(path).status_code == 204
    assert ada.get(f"{path}/comments").status_code == 404
    assert titles(ada, "/articles", favorited="ada") == []
