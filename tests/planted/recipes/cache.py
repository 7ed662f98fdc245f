"""What the recipe on caches promises."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from anyio import to_thread
from fastapi import FastAPI
from httpx2 import Response
from starlette.testclient import TestClient

from app.cache import Cache
from app.categories import caching
from app.categories.cached import CategoryCache
from app.categories.schemas import CategoryPublic
from app.db.database import Database
from app.db.session import WriteSession
from tests.support import at_once, recorded_selects
from tests.test_categories import create_category

RACES = 50


@pytest.fixture
def path(client: TestClient) -> Iterator[str]:
    """Give the path of a new category, with an empty cache."""
    assert isinstance(client.app, FastAPI)
    number = create_category(client, "Fruit")["id"]
    yield f"/categories/{number}/cached"
    client.app.state.category_cache = CategoryCache(lifetime=60)


def database_of(client: TestClient) -> Database:
    assert isinstance(client.app, FastAPI)
    database: Database = client.app.state.database
    return database


def name(client: TestClient, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200, response.text
    name: str = response.json()["name"]
    return name


def rename(client: TestClient, path: str, name: str) -> Response:
    return client.put(path, json={"name": name})


def test_what_is_cached_needs_no_database(
    client: TestClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorded_selects(database_of(client)) as selects:
        assert name(client, path) == "Fruit"
    assert len(selects) == 1
    for kind in ("read", "write", "snapshot"):
        monkeypatch.delattr(Database, kind)
    assert name(client, path) == "Fruit"


def test_a_change_is_seen_at_once(client: TestClient, path: str) -> None:
    for new in ("Nuts", "Herbs"):
        name(client, path)
        assert rename(client, path, new).status_code == 200
        assert name(client, path) == new


def test_a_missing_row_is_not_cached(client: TestClient) -> None:
    for _ in range(2):
        assert client.get("/categories/1000000/cached").status_code == 404
    assert rename(client, "/categories/1000000/cached", "Nuts").status_code == 404


def test_what_is_forgotten_is_forgotten_after_the_commit(
    client: TestClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = WriteSession.commit
    seen = []

    def look_then_commit(session: WriteSession) -> Any:
        assert isinstance(client.app, FastAPI)
        seen.append(len(client.app.state.category_cache._values))
        return commit(session)

    name(client, path)
    monkeypatch.setattr(WriteSession, "commit", look_then_commit)
    assert rename(client, path, "Nuts").status_code == 200
    assert seen == [1]
    assert client.app.state.category_cache._values == {}  # type: ignore[attr-defined]


def test_what_fails_forgets_as_well(client: TestClient, path: str) -> None:
    create_category(client, "Nuts")
    name(client, path)
    assert rename(client, path, "Nuts").status_code == 409
    with recorded_selects(database_of(client)) as selects:
        assert name(client, path) == "Fruit"
    assert len(selects) == 1


def test_a_slow_reader_does_not_bring_the_old_back(
    client: TestClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = caching.load
    names = ["Fruit", *map(str, range(RACES))]

    async def load_slowly(database: Database, category_id: int) -> CategoryPublic:
        category = await load(database, category_id)
        # All that others do happens between reading and storing.
        new = names[names.index(category.name) + 1]
        await to_thread.run_sync(rename, client, path, new)
        return category

    for race in range(RACES):
        with monkeypatch.context() as slow:
            slow.setattr(caching, "load", load_slowly)
            assert name(client, path) == names[race]
        assert name(client, path) == names[race + 1]
        call_forget(client, path)


def call_forget(client: TestClient, path: str) -> None:
    assert isinstance(client.app, FastAPI)
    client.app.state.category_cache.forget(int(path.split("/")[2]))


def test_readers_and_writers_at_once_end_with_the_truth(
    client: TestClient, path: str
) -> None:
    def work(thread: int) -> None:
        for number in range(RACES // 5):
            if thread == 0:
                assert rename(client, path, f"{number}").status_code == 200
                assert name(client, path) == f"{number}"
            else:
                name(client, path)

    at_once(work, 5)
    assert name(client, path) == f"{RACES // 5 - 1}"


def test_values_end_and_are_not_too_many(client: TestClient) -> None:
    loads: list[int] = []

    async def load(key: int) -> str:
        loads.append(key)
        return str(key)

    async def use(cache: Cache[str], *keys: int) -> None:
        for key in keys:
            assert await cache.get(key, load) == str(key)
        assert not cache._loading

    assert client.portal is not None
    few: Cache[str] = Cache(60, most=2)
    client.portal.call(use, few, 1, 2, 1, 2, 3, 1)
    assert loads == [1, 2, 3, 1]
    assert len(few._values) == 2
    brief: Cache[str] = Cache(0.01)
    client.portal.call(use, brief, 7)
    time.sleep(0.02)
    client.portal.call(use, brief, 7)
    assert loads[4:] == [7, 7]
