"""What the pages on sessions promise of categories."""

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from anyio import to_thread
from fastapi import FastAPI
from httpx2 import Response
from sqlalchemy.exc import DBAPIError
from starlette.testclient import TestClient

from app import dependencies
from app.categories import cleaning, importing, limiting, translating
from app.categories.repository import CategoryRepository
from app.config import Settings
from app.db.database import Database
from app.problems import ConflictError
from tests.support import at_once, run
from tests.test_categories import create_category


def names(client: TestClient) -> list[str]:
    return [each["name"] for each in client.get("/categories").json()["items"]]


def failure(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"]


def import_all(client: TestClient, *names: str) -> Response:
    wanted = [{"name": name} for name in names]
    return client.post("/categories/import", json=wanted)


def test_an_import_leaves_out_the_names_that_are_taken(client: TestClient) -> None:
    create_category(client, "Nuts")
    answer = import_all(client, "Fruit", "Nuts", "Herbs", "Fruit")
    assert answer.status_code == 201
    assert [each["name"] for each in answer.json()] == ["Fruit", "Herbs"]
    assert sorted(names(client)) == ["Fruit", "Herbs", "Nuts"]


def test_names_are_trimmed(client: TestClient) -> None:
    for name in (" Fruit", "Nuts"):
        create_category(client, name)
    answer = client.post("/categories/trimming")
    assert (answer.status_code, answer.json()) == (200, 1)
    assert sorted(names(client)) == ["Fruit", "Nuts"]
    create_category(client, "Nuts ")
    assert failure(client.post("/categories/trimming")) == (409, "already-exists")


def test_an_import_that_fails_saves_nothing(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_category(client, "Nuts")
    monkeypatch.setattr(importing, "is_unique_violation", lambda _: False)
    answer = import_all(client, "Fruit", "Nuts")
    assert failure(answer) == (409, "already-exists")
    assert names(client) == ["Nuts"]


def test_an_import_waits_for_a_lock_as_long_as_it_says(
    client: TestClient, settings: Settings
) -> None:
    if not settings.is_sqlite:
        pytest.skip("nobody locks what an import wants")
    with closing(sqlite3.connect(str(settings.url.database))) as rival:
        rival.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        assert failure(import_all(client, "Fruit")) == (503, "database-busy")
        assert time.monotonic() - start < settings.database_lock_timeout / 2


def test_two_categories_are_shown_side_by_side(client: TestClient) -> None:
    one, other = (create_category(client, name) for name in ("Fruit", "Nuts"))
    answer = client.get(f"/categories/{one['id']}/beside/{other['id']}")
    assert (answer.status_code, answer.json()) == (200, [one, other])
    assert client.get(f"/categories/{one['id']}/beside/1000000").status_code == 404


def test_two_statements_need_a_snapshot(
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, other = (create_category(client, name) for name in ("Fruit", "Nuts"))
    assert isinstance(client.app, FastAPI)
    snapshot, read = dependencies.get_snapshot, dependencies.get_read_session
    monkeypatch.setitem(client.app.dependency_overrides, snapshot, read)
    answer = client.get(f"/categories/{one['id']}/beside/{other['id']}")
    assert answer.status_code == 500
    assert "SnapshotNeededError" in caplog.text
    assert "use SnapshotDep" in caplog.text


def test_what_is_current_is_not_read_from_a_replica(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    category = create_category(client, "Fruit")
    for kind in ("read", "snapshot"):
        monkeypatch.delattr(Database, kind)
    answer = client.get(f"/categories/{category['id']}/current")
    assert (answer.status_code, answer.json()) == (200, category)


def test_an_export_has_a_line_for_each(client: TestClient) -> None:
    categories = [create_category(client, name) for name in ("Fruit", "Nuts", "Herbs")]
    answer = client.get("/categories.ndjson")
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    assert [json.loads(line) for line in answer.text.splitlines()] == categories


def test_the_limit_holds_when_many_come_at_once(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiting, "MOST", 3)

    def add(number: int) -> int:
        answer = client.post("/categories/limited", json={"name": str(number)})
        return answer.status_code

    assert sorted(at_once(add, 8)) == [201] * 3 + [409] * 5
    assert len(names(client)) == 3


class SerializationError(Exception):
    """What a driver raises in a serialization conflict."""

    sqlstate = "40001"


def test_all_of_it_runs_again_when_others_were_in_the_way(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions: list[Any] = []
    read = CategoryRepository.list

    def fail_once(self: CategoryRepository, **options: Any) -> Any:
        sessions.append(self.session)
        if len(sessions) == 1:
            raise DBAPIError("SELECT", None, SerializationError())
        return read(self, **options)

    monkeypatch.setattr(CategoryRepository, "list", fail_once)
    answer = client.post("/categories/limited", json={"name": "Fruit"})
    assert answer.status_code == 201
    assert len({*sessions}) == 2
    assert names(client) == ["Fruit"]


def create_translated(
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: Callable[[], object],
    name: str = "fruit in French",
) -> Response:
    """Create "fruit", let something happen during the call, and go on."""

    async def translate(_: str) -> str:
        await to_thread.run_sync(meanwhile)
        return name

    monkeypatch.setattr(translating, "translate", translate)
    return client.post("/categories/translated", json={"name": "fruit"})


def tidy_all(client: TestClient) -> None:
    for each in client.get("/categories").json()["items"]:
        assert client.post(f"/categories/{each['id']}/tidying").status_code == 202


def test_nothing_is_held_during_a_long_call(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(client.app, FastAPI)
    database: Database = client.app.state.database
    seen: list[str] = []

    def look() -> None:
        assert sum(pool["checked_out"] for pool in database.gauges().values()) == 0
        seen.extend(names(client))

    answer = create_translated(client, monkeypatch, look)
    assert (answer.status_code, answer.json()["name"]) == (201, "fruit in French")
    assert seen == ["fruit"]
    assert names(client) == ["fruit in French"]


def test_what_others_changed_during_a_long_call_stays(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = create_translated(client, monkeypatch, lambda: tidy_all(client))
    assert answer.status_code == 409
    assert names(client) == ["Fruit"]


def test_what_is_done_already_is_no_conflict(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = create_translated(
        client, monkeypatch, lambda: tidy_all(client), name="Fruit"
    )
    assert (answer.status_code, answer.json()["name"]) == (201, "Fruit")


def test_a_long_call_that_fails_leaves_the_first_step(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ConflictError("There is no such language.")

    assert create_translated(client, monkeypatch, fail).status_code == 409
    assert names(client) == ["fruit"]


def test_a_name_is_tidied_after_the_answer(client: TestClient) -> None:
    create_category(client, "fruit")
    tidy_all(client)
    assert names(client) == ["Fruit"]
    assert client.post("/categories/1000000/tidying").status_code == 404


def test_a_failure_in_the_background_is_logged_and_saves_nothing(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    create_category(client, "fruit")
    create_category(client, "Fruit")
    tidy_all(client)
    assert "background task tidy failed" in caplog.text
    assert names(client) == ["fruit", "Fruit"]


@pytest.fixture
def clean(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Give what runs the script here, and returns its exit code."""
    monkeypatch.setattr(cleaning, "load_settings", lambda: settings)
    monkeypatch.setattr(cleaning, "BATCH", 2)
    return lambda: run(cleaning.main)


def test_the_script_cleans_all(client: TestClient, clean: Callable[[], int]) -> None:
    import_all(client, "fruit", "nuts", "Herbs", "spices", "oils")
    assert clean() == 0
    assert names(client) == ["Fruit", "Nuts", "Herbs", "Spices", "Oils"]


def test_the_script_goes_on_after_a_failure(
    client: TestClient, clean: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    import_all(client, "nuts", "Fruit", "fruit", "herbs")
    assert clean() == 1
    assert names(client) == ["Nuts", "Fruit", "fruit", "Herbs"]
    assert caplog.text.count("was not tidied") == 1
