"""A full pool delays, then refuses, and recovers. It has two slots here."""

import json
import time
from collections.abc import Iterator
from threading import Thread

import anyio
import pytest
from fastapi import FastAPI
from httpx2 import Response
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from starlette.testclient import TestClient

from app.db.admission import Admission, connect_timeout
from app.db.database import Database
from app.db.errors import PoolExhaustedError
from app.metrics import observe
from app.run import run_read
from tests.session import probe as notes
from tests.support import at_once


@pytest.fixture
def full_pool(probe: TestClient) -> Iterator[TestClient]:
    """Give a client while both connections for reading are held."""
    notes.gate.clear()
    holders = [Thread(target=probe.get, args=["/notes/hold"]) for _ in range(2)]
    for holder in holders:
        holder.start()
    try:
        wait_for_gauge(probe, "checked_out", 2)
        yield probe
    finally:
        notes.gate.set()
        for holder in holders:
            holder.join()
    assert probe.get("/notes").status_code == 200


def wait_for_gauge(probe: TestClient, name: str, value: int) -> None:
    """Wait until so many connections are taken, or so many requests wait."""
    deadline = time.monotonic() + 10
    while (gauges := gauges_of(probe))[name] < value:
        assert time.monotonic() < deadline, gauges
        time.sleep(0.001)


def gauges_of(probe: TestClient) -> dict[str, int]:
    return database_of(probe).gauges()["read"]


def database_of(client: TestClient) -> Database:
    assert isinstance(client.app, FastAPI)
    database: Database = client.app.state.database
    return database


def test_waiting_ends_with_503_within_the_pool_timeout(full_pool: TestClient) -> None:
    start = time.monotonic()
    responses = at_once(lambda _: full_pool.get("/notes"), 60)
    assert time.monotonic() - start < 5
    assert {response.status_code for response in responses} == {503}
    assert {response.json()["type"] for response in responses} == {"pool-exhausted"}
    assert all(response.headers["Retry-After"].isdecimal() for response in responses)


def test_waiting_holds_up_neither_writing_nor_health(full_pool: TestClient) -> None:
    waiting = Thread(target=at_once, args=[lambda _: full_pool.get("/notes"), 60])
    waiting.start()
    assert full_pool.get("/health/live").status_code == 200
    assert full_pool.get("/health/ready").status_code == 200
    assert full_pool.post("/notes", json={}).status_code == 201
    notes.gate.set()
    waiting.join()


def test_the_gauges_show_who_waits(full_pool: TestClient) -> None:
    waiting = Thread(target=at_once, args=[lambda _: full_pool.get("/notes"), 3])
    waiting.start()
    wait_for_gauge(full_pool, "waiting", 3)
    gauges = gauges_of(full_pool)
    assert (gauges["size"], gauges["overflow"], gauges["checked_out"]) == (1, 1, 2)
    notes.gate.set()
    waiting.join()
    assert gauges_of(full_pool)["waiting"] == 0


def test_the_gauges_are_metrics(full_pool: TestClient) -> None:
    reader = InMemoryMetricReader()
    database = database_of(full_pool)
    observe(database, MeterProvider([reader]))
    found: dict[str, dict[str, int]] = {"read": {}, "write": {}}
    measured = reader.get_metrics_data()
    assert measured is not None
    for metric in measured.resource_metrics[0].scope_metrics[0].metrics:
        for point in json.loads(metric.to_json())["data"]["data_points"]:
            pool = point["attributes"]["db.pool.name"]
            found[pool][metric.name.removeprefix("db.pool.")] = point["value"]
    assert found == database.gauges()
    assert (found["read"]["checked_out"], found["write"]["checked_out"]) == (2, 0)


def test_waiting_requests_get_the_slots_that_become_free(full_pool: TestClient) -> None:
    responses: list[Response] = []

    def wait() -> None:
        responses.extend(at_once(lambda _: full_pool.get("/notes"), 9))

    waiting = Thread(target=wait)
    waiting.start()
    notes.gate.set()
    waiting.join()
    assert [response.status_code for response in responses] == [200] * 9


def test_run_read_waits_for_a_slot_and_gives_it_back(
    full_pool: TestClient,
) -> None:
    counts: list[int] = []

    def read() -> None:
        assert full_pool.portal is not None
        call, database = full_pool.portal.call, database_of(full_pool)
        counts.append(call(run_read, database, notes.count_of, "note"))

    waiting = Thread(target=read)
    waiting.start()
    wait_for_gauge(full_pool, "waiting", 1)
    notes.gate.set()
    waiting.join()
    assert counts == [0]


async def test_draining_waits_for_held_slots_and_admits_no_more() -> None:
    admission = Admission(1, timeout=0.1)
    drained = anyio.Event()

    async def drain() -> None:
        await admission.drain(5)
        drained.set()

    async with anyio.create_task_group() as tasks:
        async with admission:
            tasks.start_soon(drain)
            await anyio.wait_all_tasks_blocked()
            assert not drained.is_set()
        await drained.wait()
    with pytest.raises(PoolExhaustedError):
        await admission.__aenter__()


async def test_a_full_pool_has_a_line_when_it_begins_and_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    admission = Admission(1, 0.01, "write")
    for _ in range(2):
        async with admission:
            for _ in range(3):
                with pytest.raises(PoolExhaustedError):
                    await admission.__aenter__()
        async with admission:
            pass
    lines = [record.getMessage() for record in caplog.records]
    begin = "write pool exhausted (1 in use, 1 waiting): no connection became free"
    assert [line.startswith(begin) for line in lines] == [True, False, True, False]
    assert lines[1] == lines[3] == "write pool has free connections again"


async def test_connecting_gets_what_the_wait_has_left() -> None:
    admission = Admission(1, timeout=5)
    left: list[float | None] = []

    async def wait() -> None:
        async with admission:
            left.append(connect_timeout.get())
        left.append(connect_timeout.get())

    async with anyio.create_task_group() as tasks, admission:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert admission.waiting == 1
    assert left[0] is not None
    assert 4 < left[0] < 5
    assert left[1] is None, "background tasks have not waited"
    assert admission.waiting == 0


def test_many_at_once_are_all_served(probe: TestClient) -> None:
    def save(number: int) -> int:
        return probe.post("/notes", json={"text": f"note {number}"}).status_code

    assert set(at_once(save, 60)) <= {201, 503}
    assert probe.get("/notes").status_code == 200
