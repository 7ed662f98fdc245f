"""Recipes when everything breaks: a small version of what their pages tell of."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
import threading
import time
from asyncio import Barrier, TaskGroup
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from subprocess import DEVNULL, Popen
from typing import Any
from uuid import uuid4

import pytest
from httpx2 import Response
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.follow import Prepare
from tests.postgres import Cluster, Server
from tests.proxy import Proxy
from tests.service import (
    MIGRATE,
    PATIENCE,
    Service,
    environment_with,
    run,
    wait_until,
)
from tests.shop import UNKNOWN
from tests.template import Answers

pytestmark = [pytest.mark.slow, pytest.mark.costly]

CLIENTS = 4
CUTS = 40  # of all clients together
KILLS = 4
JOBS = 200
WORKERS = 3
SECONDS = 4  # in which workers are killed
SOCKETS = 40
MESSAGES = 3
# How each driver says it, and how the server confirms it.
COMMIT = {"async": b"COMMIT;\x00", "sync": b"Q\x00\x00\x00\x0bCOMMIT\x00"}
COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"


def test_a_repeated_request_is_done_once(
    variant: Answers, prepare: Prepare, server: Server
) -> None:
    project = prepare(variant, "idempotency-key")
    url = server.create_database()
    run(project, *MIGRATE, DATABASE_URL=url)
    # What a connection loses: nothing, its COMMIT, or what the server says of it.
    losses = (b"", COMMIT[variant["io"]], COMMITTED)
    settings: dict[str, Any] = {"ENVIRONMENT": "test", "DATABASE_POOL_SIZE": CLIENTS}
    outcomes = Counter[str]()
    responses: dict[str, Response] = {}
    with (
        Proxy(url) as proxy,
        Service(project, DATABASE_URL=proxy.url, **settings) as service,
    ):

        def work(seed: int) -> None:
            random, client = Random(seed), service.client()
            while outcomes[UNKNOWN] < CUTS:
                name, key = uuid4().hex, {"Idempotency-Key": str(uuid4())}
                while name not in responses:
                    proxy.unsaid = random.choice(losses)
                    data = {"name": name}
                    response = client.post("/categories/once", json=data, headers=key)
                    if response.status_code == 201:
                        responses[name] = response
                    else:
                        assert response.status_code == 503, response.text
                        outcomes[response.json()["type"]] += 1

        with ThreadPoolExecutor(CLIENTS) as threads:
            list(threads.map(work, range(CLIENTS)))
    rows = server.execute("SELECT name, id FROM categories", url)
    assert len(rows) == len(responses)
    assert dict(rows) == {name: each.json()["id"] for name, each in responses.items()}
    stored = server.execute("SELECT count(*) FROM idempotent_requests", url)
    assert stored == [(len(rows),)]
    assert outcomes.keys() == {UNKNOWN}
    print(len(rows), "requests", dict(outcomes))


def started(project: Path, module: str, output: Path, url: str) -> Popen[bytes]:
    """Start a module of a project, which writes what it says to a file."""
    settings = {"ENVIRONMENT": "test", "DATABASE_URL": url}
    with output.open("wb") as file:
        return Popen(
            [sys.executable, "-m", module],
            cwd=project,
            env=environment_with(**settings),
            stdin=DEVNULL,
            stdout=file,
            stderr=DEVNULL,
        )


def killed(process: Popen[bytes]) -> None:
    """End a process with no time for anything."""
    process.kill()
    process.wait()


def complete_lines(output: Path) -> list[str]:
    """Return what was written, but for a line that a kill has cut."""
    return output.read_text(encoding="utf-8").split("\n")[:-1]


@pytest.mark.rare
def test_no_message_is_lost_and_each_key_is_in_order(
    variant: Answers, prepare: Prepare, tmp_path: Path
) -> None:
    project = prepare(variant, "outbox")
    outputs: list[Path] = []
    acknowledged: set[str] = set()
    enough = threading.Event()
    with Cluster() as cluster:
        server = Server(cluster.url)
        url = server.create_database()
        run(project, *MIGRATE, DATABASE_URL=url)
        settings: dict[str, Any] = {"ENVIRONMENT": "test", "DATABASE_URL": url}
        with Service(project, **settings) as service:
            paths = []
            for name in ("one", "two"):
                made = service.client().post("/categories", json={"name": name})
                paths.append(f"/categories/{made.json()['id']}")

            def rename(writer: int) -> None:
                client = service.client()
                for number in itertools.count():
                    if enough.is_set():
                        return
                    name = f"{writer} {number}"
                    path = f"{paths[number % 2]}/name"
                    response = client.put(path, json={"name": name})
                    if response.status_code == 200:
                        acknowledged.add(name)
                    else:
                        assert response.status_code == 503, response.text

            def relay(until: Callable[[], bool]) -> Popen[bytes]:
                outputs.append(tmp_path / f"relay-{len(outputs)}")
                process = started(project, "app.outbox.relay", outputs[-1], url)
                wait_until(until)
                return process

            def wait_for_more() -> None:
                sent = outputs[-1].stat().st_size
                wait_until(lambda: outputs[-1].stat().st_size > sent)

            with ThreadPoolExecutor(CLIENTS) as threads:
                writing = [threads.submit(rename, each) for each in range(CLIENTS)]
                random = Random(0)
                try:
                    for kill in range(KILLS):
                        process = relay(lambda: outputs[-1].stat().st_size > 0)
                        time.sleep(random.random() / 10)
                        if kill % 3 == 2:
                            cluster.cut_power()
                            cluster.start()
                            wait_for_more()  # from the same relay
                        killed(process)
                finally:
                    enough.set()
            for each in writing:
                each.result()

            def is_empty() -> bool:
                return server.execute("SELECT count(*) FROM outbox", url) == [(0,)]

            killed(relay(is_empty))
        stored = dict(server.execute("SELECT id, name FROM categories", url))
    lines = [line for output in outputs for line in complete_lines(output)]
    messages = [
        (each["id"], json.loads(each["data"])) for each in map(json.loads, lines)
    ]
    # What a receiver makes of it: each id once.
    received = dict(messages)
    names = [message["name"] for message in received.values()]
    assert len({*names}) == len(names)
    assert acknowledged <= {*names}
    for category, name in stored.items():
        ids = [id for id, message in received.items() if message["id"] == category]
        assert ids == sorted(ids)
        assert received[ids[-1]]["name"] == name
    print(len(acknowledged), "acknowledged", len(names), "received", end=" ")
    print(len(messages) - len(names), "of them again;", KILLS, "kills")


# A short lease, and a task that takes a moment.
ATTACKED = """
import time
from datetime import timedelta

from app.jobs import repository, worker

repository.LEASE = timedelta(seconds=2)
repository.MOST_ATTEMPTS = 1_000
worker.PAUSE = 0.1
echo = worker.TASKS["echo"]


def echo_slowly(argument):
    time.sleep(0.05)
    return echo(argument)


worker.TASKS["echo"] = echo_slowly
"""
LEASES = """
CREATE TABLE leases (job bigint, before timestamptz, at timestamptz);
CREATE FUNCTION note_lease() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO leases VALUES (NEW.id, OLD.due, clock_timestamp());
    RETURN NULL;
END
$$;
CREATE TRIGGER leases AFTER UPDATE OF attempts ON jobs
    FOR EACH ROW EXECUTE FUNCTION note_lease();
"""


@pytest.mark.rare
def test_each_job_is_done_and_no_lease_is_shared(
    variant: Answers, prepare: Prepare, server: Server, tmp_path: Path
) -> None:
    project = prepare(variant, "queue")
    url = server.create_database()
    run(project, *MIGRATE, DATABASE_URL=url)
    server.execute(LEASES, url)
    server.execute(
        "INSERT INTO jobs (task, argument, due, attempts, is_dead, error)"
        " SELECT 'echo', number, now(), 0, false, ''"
        f" FROM generate_series(1, {JOBS}) AS number",
        url,
    )
    call = "worker.main()"
    if variant["io"] == "async":
        call = f"__import__('asyncio').run({call})"
    source = f"{ATTACKED}\nif __name__ == '__main__':\n    {call}\n"
    (project / "app" / "jobs" / "attacked.py").write_text(source, encoding="utf-8")
    outputs: list[Path] = []

    def work() -> Popen[bytes]:
        outputs.append(tmp_path / f"worker-{len(outputs)}")
        return started(project, "app.jobs.attacked", outputs[-1], url)

    def left() -> int:
        [(count,)] = server.execute("SELECT count(*) FROM jobs", url)
        return int(count)

    def all_are_working() -> bool:
        # A lease of two seconds, of which one has not passed.
        recent = "SELECT count(*) FROM jobs WHERE due > now() + interval '1 second'"
        [(count,)] = server.execute(recent, url)
        return count >= WORKERS or not left()

    random, kills = Random(0), 0
    workers = [work() for _ in range(WORKERS)]
    try:
        wait_until(lambda: left() < JOBS)
        while left():
            if kills < KILLS:
                wait_until(all_are_working)
                which = random.randrange(WORKERS)
                killed(workers[which])
                workers[which] = work()
                kills += 1
            time.sleep(random.random() * SECONDS / KILLS)
    finally:
        for each in workers:
            killed(each)
    done = Counter(line for output in outputs for line in complete_lines(output))
    assert {*done} == {str(number) for number in range(1, JOBS + 1)}
    shared = "SELECT count(*) FROM leases WHERE at < before"
    assert server.execute(shared, url) == [(0,)]
    [(leases,)] = server.execute("SELECT count(*) FROM leases", url)
    assert sum(done.values()) <= leases
    assert leases > JOBS  # or no kill has hit
    print(
        f"{JOBS} jobs, {leases} leases, {done.total() - JOBS} done again, {kills} kills"
    )


@pytest.mark.rare
def test_many_sockets_share_a_small_pool(
    variant: Answers, prepare: Prepare, server: Server
) -> None:
    project = prepare(variant, "websocket")
    url = server.create_database()
    run(project, *MIGRATE, DATABASE_URL=url)
    settings: dict[str, Any] = {"ENVIRONMENT": "test", "DATABASE_URL": url}
    settings |= {"DATABASE_POOL_SIZE": 5, "DATABASE_POOL_TIMEOUT": PATIENCE}
    settings |= {"LIVE_TOKEN": "known"}
    acknowledged: list[str] = []
    closed = Counter[int | None]()

    async def talk(url: str, socket: int, ready: Barrier) -> None:
        async with connect(f"{url}/live", proxy=None, open_timeout=PATIENCE) as live:
            await live.send("known")
            for number in range(MESSAGES):
                name = f"{socket} {number}"
                await live.send(json.dumps({"name": name}))
                assert "id" in json.loads(await live.recv())
                acknowledged.append(name)
            await ready.wait()
            # From here to the end of the server, nobody waits for a response.
            try:
                while True:
                    await live.send(json.dumps({"name": uuid4().hex}))
                    await live.recv()
            except ConnectionClosed as reason:
                closed[reason.rcvd.code if reason.rcvd else None] += 1

    async def talk_all(service: Service) -> None:
        ready = Barrier(SOCKETS + 1)
        ws = service.url.replace("http", "ws", 1)
        async with TaskGroup() as tasks:
            for socket in range(SOCKETS):
                tasks.create_task(talk(ws, socket, ready))
            await ready.wait()
            await asyncio.sleep(0.1)
            service.signal(signal.SIGTERM)

    with Service(project, **settings) as service:
        asyncio.run(talk_all(service))
        service.wait()
        log = service.log
    used = "FROM categories WHERE name LIKE '% %'"
    [(stored,)] = server.execute(f"SELECT count(*) {used}", url)
    assert stored == len(acknowledged) == SOCKETS * MESSAGES
    assert closed == {1012: SOCKETS}
    assert "ERROR" not in log
    print(SOCKETS, "sockets", len(acknowledged), "messages; then closed by", closed)
