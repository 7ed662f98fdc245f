"""What the recipe on keyset pagination promises."""

from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient

from app.categories import browsing
from app.cursors import Cursors, Place
from tests.support import recorded_selects
from tests.test_categories import create_category

NAMES = [f"{number:02}" for number in range(10)]
PATH = "/sorted-categories"


@pytest.fixture
def categories(client: TestClient) -> dict[str, Any]:
    """Give ten categories by name, stored in another order."""
    return {name: create_category(client, name) for name in NAMES[::-1]}


def page(client: TestClient, cursor: str | None = None, limit: int = 3) -> Any:
    params: dict[str, Any] = {"limit": limit} | ({"cursor": cursor} if cursor else {})
    response = client.get(PATH, params=params)
    assert response.status_code == 200, response.text
    return response.json()


def names(page: Any) -> list[str]:
    return [each["name"] for each in page["items"]]


def walk(client: TestClient, way: str, cursor: str | None = None) -> list[list[str]]:
    pages = []
    while True:
        found = page(client, cursor)
        pages.append(names(found))
        cursor = found[way]
        if cursor is None:
            return pages


FORWARDS = [NAMES[:3], NAMES[3:6], NAMES[6:9], NAMES[9:]]


@pytest.mark.usefixtures("categories")
def test_there_and_back(client: TestClient) -> None:
    assert walk(client, "next") == FORWARDS
    last = page(client)
    assert last["previous"] is None
    while last["next"]:
        last = page(client, last["next"])
    assert walk(client, "previous", last["previous"]) == [
        NAMES[6:9],
        NAMES[3:6],
        NAMES[:3],
    ]
    # A page that was reached backwards knows what is after it.
    back = page(client, last["previous"])
    assert names(page(client, back["next"])) == NAMES[9:]


@pytest.mark.usefixtures("categories")
def test_the_last_page_may_be_full(client: TestClient) -> None:
    first = page(client, limit=5)
    second = page(client, first["next"], limit=5)
    assert (names(second), second["next"]) == (NAMES[5:], None)
    assert page(client, limit=10)["next"] is None


def test_an_empty_list_has_no_cursors(client: TestClient) -> None:
    assert page(client) == {"items": [], "previous": None, "next": None}


def test_what_comes_and_goes_moves_nothing(
    client: TestClient, categories: dict[str, Any]
) -> None:
    first = page(client)
    create_category(client, "00a")  # before the cursor: it is not seen, nor felt
    create_category(client, "03a")
    second = page(client, first["next"])
    assert names(second) == ["03", "03a", "04"]
    third = page(client, second["next"])
    assert names(third) == ["05", "06", "07"]
    assert names(page(client, second["previous"])) == ["00a", "01", "02"]
    assert len(categories) == 10


def test_a_cursor_is_a_place_and_needs_no_row(client: TestClient) -> None:
    assert isinstance(client.app, FastAPI)
    cursors: Cursors = client.app.state.cursors
    for name in ("a", "c"):
        create_category(client, name)
    for forwards, beside in ((True, ["c"]), (False, ["a"])):
        place = Place(forwards=forwards, value="b", id=1_000_000)
        cursor = cursors.write(browsing.BY_NAME, place)
        assert names(page(client, cursor)) == beside


@pytest.mark.usefixtures("categories")
def test_a_cursor_is_ours_and_of_its_list(client: TestClient) -> None:
    assert isinstance(client.app, FastAPI)
    cursors: Cursors = client.app.state.cursors
    place = Place(forwards=True, value="03", id=1)
    good = cursors.write(browsing.BY_NAME, place)
    assert names(page(client, good))[0] in NAMES[3:5]
    forged = Cursors(SecretStr("k" * 32)).write(browsing.BY_NAME, place)
    wrong = (
        cursors.write("another list", place),
        forged,
        good[:-4],
        "AAAA" + good[4:],
        "a",
        "ä",
        "x" * 100,
    )
    for each in wrong:
        assert client.get(PATH, params={"cursor": each}).status_code == 422, each


def test_processes_share_a_key() -> None:
    place = Place(forwards=False, value="ä\x00", id=2**63 - 1)
    one, other = (Cursors(SecretStr("k" * 32)) for _ in range(2))
    assert other.read("list", one.write("list", place)) == place


@pytest.mark.usefixtures("categories")
def test_it_is_one_statement_without_offset(client: TestClient) -> None:
    assert isinstance(client.app, FastAPI)
    cursor = page(client)["next"]
    with recorded_selects(client.app.state.database) as selects:
        page(client, cursor)
    (select,) = selects
    assert "count(" not in select
    assert "(categories.name, categories.id) > (" in select
