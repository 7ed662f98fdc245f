"""Streams have a session of their own, for as long as they last."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from starlette.testclient import TestClient

from app.config import Settings
from app.main import create_app
from tests.session import probe as notes
from tests.session.conftest import serve_routers
from tests.session.test_admission import database_of, gauges_of, wait_for_gauge
from tests.support import make_settings


def stream(probe: TestClient) -> str:
    return probe.get("/notes/stream").text


def save(probe: TestClient, *texts: str) -> None:
    for text in texts:
        assert probe.post("/notes", json={"text": text}).status_code == 201


@contextmanager
def closed_gate() -> Iterator[None]:
    """Keep each stream open until the test opens the gate."""
    notes.streaming.clear()
    notes.gate.clear()
    try:
        yield
    finally:
        notes.gate.set()


def test_all_statements_of_a_stream_see_one_state(probe: TestClient) -> None:
    save(probe, "a", "b")
    with ThreadPoolExecutor() as threads:
        with closed_gate():
            streaming = threads.submit(stream, probe)
            assert notes.streaming.wait(10)
            save(probe, "c")
        assert streaming.result() == "a\nb\n2\n"


def test_streams_leave_half_of_the_slots_to_others(probe: TestClient) -> None:
    with ThreadPoolExecutor() as threads:
        with closed_gate():
            streaming = [threads.submit(stream, probe) for _ in range(2)]
            wait_for_gauge(probe, "waiting", 1)
            # One streams, one waits, and the second of the two slots is free.
            assert probe.get("/notes").status_code == 200
        assert streaming[0].result() == "0\n"


@pytest.fixture
def hasty(notes_settings: Settings) -> Iterator[TestClient]:
    """Give a client of an app with a short stream timeout."""
    with serve_routers(
        notes_settings, notes.router, database_stream_timeout=0.1
    ) as client:
        yield client


def test_a_stream_that_takes_too_long_is_cut(hasty: TestClient) -> None:
    with ThreadPoolExecutor() as threads:
        with closed_gate():
            streaming = threads.submit(stream, hasty)
            assert notes.streaming.wait(10)
            threads.submit(notes.gate.wait, 0.3).result()
        with pytest.raises(TimeoutError):
            streaming.result()
    assert gauges_of(hasty)["checked_out"] == 0


async def count_tasks() -> int:
    return len(asyncio.all_tasks())


def test_a_stream_leaves_nothing_behind_wherever_it_is_cut(
    hasty: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes.gate.set()
    save(hasty, *map(str, range(40)))
    assert hasty.portal is not None
    tasks = hasty.portal.call(count_tasks)
    for milliseconds in range(1, 30):
        monkeypatch.setattr(database_of(hasty), "stream_timeout", milliseconds / 1_000)
        with suppress(TimeoutError):
            stream(hasty)
        assert gauges_of(hasty)["checked_out"] == 0
    assert hasty.portal.call(count_tasks) == tasks


def test_a_stream_that_cannot_begin_is_an_error() -> None:
    app = create_app(make_settings("postgresql://nobody@127.0.0.1:1/nothing"))
    app.include_router(notes.router)
    with TestClient(app) as client:
        assert client.get("/notes/stream").status_code == 503
