"""Services under attack: whatever breaks, what was acknowledged is there afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from httpx2 import Response

from tests import pgbouncer, test_server
from tests.evidence import count_passed, note
from tests.pgbouncer import PgBouncer
from tests.postgres import Cluster, Server
from tests.proxy import Proxy
from tests.service import PATIENCE, Service, register, run, wait_until
from tests.template import COMBINATIONS, EXTREMES, Answers, Bakery, name_of
from tests.test_server import (
    ABANDONED,
    ADA,
    BOOKS,
    CONNECTIONS,
    MANY_PRODUCTS,
    MIGRATE,
    PATIENTLY,
    PLENTY,
    POOL_SIZE,
    SLOW_OR_FAILING_COMMIT,
    WRONG_BALANCES,
    OpenShop,
    Shop,
    Somebody,
    an_order,
    assert_is_whole,
    assert_no_stream_is_left,
    create,
    export,
    failing_commits,
    fulfil,
    locked,
    new_product,
    opened,
    order,
    read,
    received,
    sent,
    shopping,
    somebody,
    stalled_stream,
    transfer,
    waiting_for_the_lock,
)

pytestmark = pytest.mark.slow

Settings = dict[str, Any]

# Most tests of this module are content with two variants.
in_all_variants = pytest.mark.parametrize(
    "project", COMBINATIONS, indirect=True, ids=name_of
)

UNKNOWN = "commit-outcome-unknown"
# Users and transfers share the fate of products and orders, and attempts are counted:
# a sequence keeps what a transaction that failed has taken of it.
MORE_FAILING_COMMITS = """
CREATE SEQUENCE attempts;
CREATE FUNCTION count_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nextval('attempts');
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER attempts AFTER INSERT ON transfers
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_attempt();
CREATE CONSTRAINT TRIGGER fate AFTER INSERT ON transfers
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION meet_fate(0);
CREATE CONSTRAINT TRIGGER fate AFTER INSERT ON users
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION meet_fate(0);
"""
# Each transfer's first two commits fail.
BUSY_TWICE = """
CREATE OR REPLACE FUNCTION count_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('attempts') < 3 THEN
        RAISE EXCEPTION 'this was not to be' USING ERRCODE = '40001';
    END IF;
    RETURN NULL;
END
$$
"""
# One UPDATE of three loses its connection with the same word that fails it.
DYING_WORDS = """
CREATE SEQUENCE deaths;
CREATE FUNCTION die_failing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('deaths') % 3 = 1 THEN
        RAISE EXCEPTION 'this was not to be' USING ERRCODE =
            CASE WHEN pg_terminate_backend(pg_backend_pid()) THEN '40001' END;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER die_failing BEFORE UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION die_failing();
"""
ATTEMPTS = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM attempts"
DEFERRED_UNIQUE = """
ALTER TABLE products
    ADD CONSTRAINT one_of_a_name UNIQUE (name) DEFERRABLE INITIALLY DEFERRED
"""
# What only the database or its driver would say.
TEXTS = (
    *("not to be", "duplicate", "one_of_a_name", "psycopg", "asyncpg", "sqlalchemy"),
    *("insert into", "commit;", "sqlstate", "postgres", "127.0.0.1", "traceback"),
)
# How the server says it.
COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"
KILL_ALL = f"""
SELECT count(*) FROM (SELECT pg_terminate_backend(pid) AS killed {CONNECTIONS}) AS all_
WHERE killed
"""
WRITERS = 32
THREADS = 60
# How long the app waits, when it ends, for connections to come back, in seconds.
DRAIN = 5
# All workers take the tokens that one of them has given.
WORKERS = {"UVICORN_WORKERS": 2, "SECRET_KEY": "of both workers " * 2}
SERVER_CONNECTIONS = 4
WRITES = 2_000
# A COMMIT that places an order waits while somebody else has the advisory lock.
HELD_COMMIT = """
CREATE FUNCTION wait_for_leave() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1);
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER held AFTER INSERT ON orders
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_for_leave();
"""
IN_COMMIT = "wait_event = 'advisory' AND query ILIKE 'commit%'"


@pytest.fixture(scope="module")
def stocked(bake: Bakery, server: Server) -> str:
    """The URL of a database to copy, as the tests of servers have it."""
    return stock(server, bake)


def stock(server: Server, bake: Bakery) -> str:
    """Return the URL of a database with two products, where a COMMIT may be slow."""
    url = server.create_database()
    run(bake(**COMBINATIONS[0], example=True), *MIGRATE, DATABASE_URL=url)
    server.execute(SLOW_OR_FAILING_COMMIT, url)
    return url


@pytest.fixture(params=EXTREMES, ids=name_of)
def project(request: pytest.FixtureRequest, bake: Bakery) -> Path:
    """An asynchronous and a synchronous variant, unlike in all else too."""
    return bake(**request.param, example=True)


@pytest.fixture
def open_shop(project: Path, server: Server, stocked: str) -> OpenShop:
    """Opens a shop of each of them, on a small pool."""
    return partial(opened, project, server, stocked, DATABASE_POOL_SIZE=POOL_SIZE)


@contextmanager
def directly(
    project: Path,
    server: Server,
    stocked: str,
    pooler: PgBouncer | None = None,
    **settings: Any,
) -> Iterator[Shop]:
    """Serve a project on a database of its own, with at most a pooler in between."""
    url = server.create_database(template=stocked)
    way = Proxy(url)
    way.url = pooler.way_to(url) if pooler else url  # It is never entered.
    settings = {"ENVIRONMENT": "test"} | settings
    with Service(project, DATABASE_URL=way.url, **settings) as service:
        yield Shop(service, way, partial(server.execute, url=url))


def assert_tells_nothing(answers: list[Response]) -> None:
    """Check that each is a problem, in our own words."""
    for answer in answers:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        assert [text for text in TEXTS if text in answer.text.lower()] == []


@pytest.fixture(scope="module", params=COMBINATIONS, ids=name_of)
def failing(
    request: pytest.FixtureRequest, bake: Bakery, server: Server, stocked: str
) -> Iterator[Shop]:
    """A shop where registering and giving may fail in the end, too."""
    project = bake(**request.param, example=True)
    settings: Settings = {"DATABASE_POOL_SIZE": 1, "DATABASE_RETRY_DEADLINE": 1}
    with directly(project, server, stocked, **settings) as shop:
        shop.sql(MORE_FAILING_COMMITS)
        yield shop


FATES = [("P0001", 500), ("23505", 409), ("40001", 503)]


@pytest.mark.parametrize(("sqlstate", "status"), FATES)
def test_nobody_is_registered_by_a_commit_that_fails(
    sqlstate: str, status: int, failing: Shop
) -> None:
    client, email = failing.service.client(), f"{uuid4()}@example.com"
    with failing_commits(failing, sqlstate, "users"):
        answer = register(client, email)
    assert answer.status_code == status
    assert_tells_nothing([answer])
    assert failing.sql(f"SELECT FROM users WHERE email = '{email}'") == []
    assert register(client, email).status_code == 201


@pytest.mark.parametrize(("sqlstate", "status"), FATES)
def test_a_transfer_that_fails_in_its_commit_is_made_again_only_if_that_may_help(
    sqlstate: str, status: int, failing: Shop
) -> None:
    sender, recipient = somebody(failing), somebody(failing)
    count = "SELECT count(*) FROM transfers"
    before = failing.sql(count)
    ((attempts,),) = failing.sql(ATTEMPTS)
    with failing_commits(failing, sqlstate, "transfers"):
        answer = transfer(sender.client, recipient.email)
    ((tried,),) = failing.sql(ATTEMPTS)
    assert answer.status_code == status
    assert_tells_nothing([answer])
    assert answer.headers.get("Retry-After") == ("1" if status == 503 else None)
    assert (tried - attempts > 1) is (sqlstate == "40001"), tried - attempts
    assert failing.sql(count) == before
    assert failing.sql(WRONG_BALANCES) == []
    assert transfer(sender.client, recipient.email).status_code == 201


def test_a_transfer_that_fails_twice_in_its_commit_is_made_once(
    open_shop: OpenShop,
) -> None:
    with open_shop(**PATIENTLY) as shop:
        sender, recipient = somebody(shop), somebody(shop)
        shop.sql(MORE_FAILING_COMMITS)
        shop.sql(BUSY_TWICE)
        answer = transfer(sender.client, recipient.email)
        assert answer.status_code == 201
        assert answer.json()["balance"] == 9_900
        assert shop.sql(ATTEMPTS) == [(3,)]
        assert shop.sql("SELECT amount FROM transfers") == [(100,)]
        assert shop.sql(WRONG_BALANCES) == []
        assert_is_whole(shop)


def test_one_of_many_has_what_only_the_commit_finds_to_be_taken(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop, ThreadPoolExecutor(20) as threads:
        shop.sql(DEFERRED_UNIQUE)
        client = shop.client()
        with locked(shop):
            asked = [threads.submit(create, client) for _ in range(20)]
            wait_until(lambda: waiting_for_the_lock(shop) == POOL_SIZE)
        answers = [each.result() for each in asked]
        assert Counter(each.status_code for each in answers) == {201: 1, 409: 19}
        refused = [each for each in answers if each.status_code == 409]
        assert_tells_nothing(refused)
        assert {each.json()["type"] for each in refused} == {"already-exists"}
        assert shop.sql("SELECT count(*) FROM products WHERE name = 'New'") == [(1,)]
        shop.sql("ALTER TABLE products DROP CONSTRAINT one_of_a_name")
        assert_is_whole(shop)


def test_what_fails_in_the_background_changes_nothing_and_is_logged(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop:
        client = shop.client()
        id = order(client, PLENTY).json()["id"]
        with failing_commits(shop, "P0001", "orders"):
            assert fulfil(client, id).status_code == 202
            wait_until(lambda: "in the background: " in shop.service.log)
        assert client.get(f"/orders/{id}").json()["status"] == "placed"
        assert_is_whole(shop)


@dataclass(frozen=True)
class Write:
    """An attempt to create a product, when it was made, and what came of it."""

    sku: str
    begin: float
    end: float
    answer: Response


@contextmanager
def writing(shop: Shop) -> Iterator[list[Write]]:
    """Give what clients write, one after the other each, as long as it lasts."""
    client = shop.client()
    writes: list[Write] = []
    enough = threading.Event()

    def write() -> None:
        while not enough.is_set():
            product, begin = new_product(), time.monotonic()
            answer = client.post("/products", json=product)
            writes.append(Write(product["sku"], begin, time.monotonic(), answer))

    with ThreadPoolExecutor(WRITERS) as threads:
        asked = [threads.submit(write) for _ in range(WRITERS)]
        try:
            yield writes
        finally:
            enough.set()
    for each in asked:
        each.result()


def begun_after(moment: float, writes: list[Write]) -> list[Write]:
    """Return those writes that were begun later."""
    return [each for each in writes if each.begin > moment]


def recovered_after(moment: float, writes: list[Write]) -> float:
    """Return how many seconds later the last one was refused, or 0."""
    refused = [each.end for each in writes if each.answer.status_code != 201]
    return max(0, *(end - moment for end in refused))


def assert_is_honest(shop: Shop, writes: list[Write]) -> str:
    """Check that all is stored that was acknowledged, and nothing that was refused.

    Where nobody can know, that is what the client was told. Returns the figures.
    """
    statuses = Counter(each.answer.status_code for each in writes)
    assert statuses.keys() == {201, 503}, statuses
    refused = [each.answer for each in writes if each.answer.status_code == 503]
    assert_tells_nothing(refused)
    for answer in refused:
        assert ("Retry-After" in answer.headers) is (answer.json()["type"] != UNKNOWN)
    reasons = Counter(answer.json()["type"] for answer in refused)
    unknown = {w.sku for w in writes if w.answer.json().get("type") == UNKNOWN}
    acknowledged = {w.sku for w in writes if w.answer.status_code == 201}
    rows = shop.sql("SELECT sku FROM products WHERE name = 'New'")
    stored = {sku for (sku,) in rows}
    lost = acknowledged - stored
    note(acknowledged=len(acknowledged), lost=len(lost))
    assert lost == set()
    assert stored - acknowledged - unknown == set(), "refused and stored"
    return (
        f"{len(writes)} writes, {len(acknowledged)} acknowledged, 0 lost, "
        f"{len(unknown & stored)} of {len(unknown)} unknown stored, {dict(reasons)}"
    )


@in_all_variants
def test_no_acknowledged_write_is_lost_when_connections_are_killed(
    project: Path, server: Server, stocked: str
) -> None:
    with directly(project, server, stocked, DATABASE_POOL_SIZE=POOL_SIZE) as shop:
        kills = []
        with writing(shop) as writes:
            while len(writes) < WRITES:
                time.sleep(0.3)
                kills += shop.sql(KILL_ALL)
            last = time.monotonic()
            wait_until(lambda: len(begun_after(last + 1, writes)) >= WRITERS)
        killed = sum(count for (count,) in kills)
        recovery = recovered_after(last, writes)
        print(f"{killed} killed in {len(kills)} rounds, {recovery:.3f} s to recover,")
        note(recovery=recovery)
        print(assert_is_honest(shop, writes))
        assert killed > len(kills) > 2
        assert recovery < 1
        assert_is_whole(shop)
        shop.sql(KILL_ALL)
        wait_until(lambda: shop.connections() == 0)
        assert_is_whole(shop)  # Nobody fails for what died while nobody used it.


def test_a_transfer_that_fails_as_its_connection_dies_is_made_again(
    open_shop: OpenShop,
) -> None:
    with open_shop(**PATIENTLY) as shop:
        sender, recipient = somebody(shop), somebody(shop)
        shop.sql(DYING_WORDS)
        answers = [transfer(sender.client, recipient.email) for _ in range(10)]
        assert [each.status_code for each in answers] == [201] * 10
        assert shop.sql("SELECT amount FROM transfers") == [(100,)] * 10
        assert shop.sql(WRONG_BALANCES) == []
        assert_is_whole(shop)


def give_all(users: list[Somebody], number: int) -> list[tuple[str, int, Response]]:
    """Give 1, 2, 3 and so on to the next user; return who gave what, and its answer."""
    sender, recipient = users[number], users[(number + 1) % len(users)]
    return [
        (sender.email, amount, transfer(sender.client, recipient.email, amount))
        for amount in range(1, 31)
    ]


def test_no_transfer_is_made_twice_when_connections_are_killed(
    project: Path, server: Server, stocked: str
) -> None:
    settings: Settings = {"DATABASE_POOL_SIZE": POOL_SIZE, **PATIENTLY}
    with (
        directly(project, server, stocked, **settings) as shop,
        ThreadPoolExecutor() as threads,
    ):
        users = [somebody(shop) for _ in range(8)]
        asked = [threads.submit(give_all, users, number) for number in range(8)]
        kills = []
        while not all(each.done() for each in asked):
            time.sleep(0.1)
            kills += shop.sql(KILL_ALL)
        given = [each for some in asked for each in some.result()]
        statuses = Counter(answer.status_code for *_, answer in given)
        assert statuses.keys() <= {201, 503}, statuses
        made = {each[:2] for each in given if each[2].status_code == 201}
        unknown = {each[:2] for each in given if each[2].status_code == 503}
        refused = [each[2] for each in given if each[2].status_code == 503]
        assert {each.json()["type"] for each in refused} <= {UNKNOWN}
        rows = shop.sql(
            "SELECT email, amount FROM transfers JOIN users ON users.id = sender_id"
        )
        again = shop.service.log.count("others were in the way")
        print(f"{sum(n for (n,) in kills)} killed in {len(kills)} rounds,")
        print(f"{len(made)} made, {len(unknown)} unknown, {again} attempts made again")
        assert len(rows) == len({*rows}), "made twice"
        assert made <= {*rows} <= made | unknown
        assert again
        assert shop.sql(WRONG_BALANCES) == []
        assert_is_whole(shop)


def test_what_is_saved_and_never_confirmed_is_not_refused_and_not_done_again(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop:
        client = shop.client()
        giver, taker = somebody(shop), somebody(shop)
        shop.proxy.unsaid = COMMITTED
        answers = [
            create(client),
            order(client, PLENTY),
            transfer(giver.client, taker.email),
            register(client, ADA),
        ]
        shop.proxy.unsaid = b""
        assert [each.status_code for each in answers] == [503] * 4
        assert {each.json()["type"] for each in answers} == {UNKNOWN}
        assert [each for each in answers if "Retry-After" in each.headers] == []
        assert_tells_nothing(answers)
        assert shop.sql("SELECT count(*) FROM products WHERE name = 'New'") == [(1,)]
        assert shop.sql("SELECT quantity FROM order_items") == [(1,)]
        assert shop.sql("SELECT amount FROM transfers") == [(100,)]
        assert shop.sql(WRONG_BALANCES) == []
        assert register(client, ADA).status_code == 409
        assert_is_whole(shop)


@pytest.fixture(scope="module")
def fragile() -> Iterator[Cluster]:
    """A server of its own, for those who stop it; they start it again."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def stocked_fragile(bake: Bakery, fragile: Cluster) -> str:
    """The URL of a database to copy there."""
    return stock(Server(fragile.url), bake)


def stop(cluster: Cluster, how: str) -> None:
    """Stop the server; there are three ways."""
    match how:
        case "power cut":
            cluster.cut_power()
        case "fast":
            cluster.stop(signal.SIGINT)
        case "immediate":
            cluster.stop(signal.SIGQUIT)


@in_all_variants
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(
            "power cut",
            marks=pytest.mark.skipif(
                sys.platform != "linux", reason="no list of a process's children"
            ),
        ),
        "fast",
        "immediate",
    ],
)
def test_no_acknowledged_write_is_lost_when_the_server_goes(
    how: str, project: Path, fragile: Cluster, stocked_fragile: str
) -> None:
    server = Server(fragile.url)
    settings: Settings = {"DATABASE_POOL_SIZE": POOL_SIZE}
    with directly(project, server, stocked_fragile, **settings) as shop:
        client = shop.client()
        with writing(shop) as writes:
            wait_until(lambda: len(writes) >= 200)
            stop(fragile, how)
            gone = time.monotonic()
            wait_until(lambda: len(begun_after(gone, writes)) >= 200)
            refused = [read(client), order(client, PLENTY), export(client)]
            refused += [client.get("/health/ready"), client.get("/health/database")]
            assert client.get("/health/live").status_code == 200
            away = begun_after(gone, writes)
            fragile.start()
            back = time.monotonic()
            wait_until(lambda: len(begun_after(back + 1, writes)) >= WRITERS)
        recovery = recovered_after(back, writes)
        print(f"{how}: {recovery:.3f} s to recover, {len(away)} refused while away,")
        note(recovery=recovery)
        print(assert_is_honest(shop, writes))
        assert [each.status_code for each in refused] == [503] * 5
        assert_tells_nothing(refused)
        assert {each.answer.status_code for each in away} == {503}
        assert recovery < 1
        assert client.get("/health/ready").status_code == 200
        assert_is_whole(shop)


def test_a_single_connection_serves_everything_at_once(open_shop: OpenShop) -> None:
    single = {"DATABASE_POOL_SIZE": 1, "DATABASE_MAX_OVERFLOW": 0}
    with (
        open_shop(**single, **PATIENTLY) as shop,
        ThreadPoolExecutor(40) as threads,
    ):
        users = [somebody(shop) for _ in range(3)]
        visit = partial(shopping, time.monotonic() + 3, users)
        answers = [each for some in threads.map(visit, range(40)) for each in some]
        statuses = Counter(each.status_code for each in answers)
        assert statuses.keys() == {200, 201, 202, 404, 409}, statuses
        assert shop.sql(BOOKS) == [(1_000_000,)]
        assert shop.sql(WRONG_BALANCES) == []
        assert_no_stream_is_left(shop)
        assert_is_whole(shop)
        assert shop.connections() <= 3


def test_a_lock_that_nobody_gives_back_is_waited_for_in_bounds(
    open_shop: OpenShop,
) -> None:
    with (
        open_shop(DATABASE_LOCK_TIMEOUT=1, **PATIENTLY) as shop,
        ThreadPoolExecutor(20) as threads,
    ):
        client = shop.client()
        row = f"SELECT FROM products WHERE id = {PLENTY} FOR UPDATE"
        with psycopg.connect(shop.proxy.url) as holder:
            holder.execute(row.encode())
            storm = [threads.submit(order, client, PLENTY) for _ in range(20)]
            wait_until(lambda: waiting_for_the_lock(shop) == POOL_SIZE)
            assert read(client).status_code == 200
            answers = [each.result() for each in storm]
        assert {each.status_code for each in answers} == {503}
        assert {each.json()["type"] for each in answers} == {"database-busy"}
        assert {each.headers["Retry-After"] for each in answers} == {"1"}
        assert_tells_nothing(answers)
        assert min(each.elapsed.total_seconds() for each in answers) >= 1
        again = list(threads.map(lambda _: order(client, PLENTY), range(20)))
        assert {each.status_code for each in again} == {201}
        assert shop.sql(BOOKS) == [(1_000_000,)]
        assert_is_whole(shop)


def ask_for_orders(shop: Shop, product_ids: list[int]) -> list[socket.socket]:
    """Order each product by a request of its own; return where the answers come."""
    client = shop.client()
    bodies = [json.dumps(an_order(id)) for id in product_ids]
    return [sent(client, "POST /orders", body) for body in bodies]


def hang_up(connections: list[socket.socket]) -> int:
    """Leave with no answer, known to the service to have left; return how many have."""
    for each in connections:
        with each:
            each.settimeout(PATIENCE)
            each.shutdown(socket.SHUT_WR)
            assert received(each) == b""
    return len(connections)


def leave_the_queue(shop: Shop, product_ids: list[int]) -> int:
    """Leave while most wait for a place."""
    with locked(shop):
        asked = ask_for_orders(shop, product_ids * 10)
        wait_until(lambda: shop.gauges()["waiting"] == len(asked) - POOL_SIZE)
        return hang_up(asked)


def leave_queries(shop: Shop, product_ids: list[int]) -> int:
    """Leave while the statements of all connections run, to write and to read."""
    client = shop.client()
    with locked(shop):
        asked = ask_for_orders(shop, product_ids)
        asked += [sent(client, "GET /products") for _ in range(POOL_SIZE)]
        wait_until(lambda: waiting_for_the_lock(shop) == len(asked))
        return hang_up(asked)


def leave_streams(shop: Shop, _product_ids: list[int]) -> int:
    """Leave while as many answers are streamed as may be."""
    streams = POOL_SIZE // 2
    with ExitStack() as connections:
        for _ in range(streams):
            connections.enter_context(stalled_stream(shop))
        assert shop.connections("backend_xmin IS NOT NULL") == streams
    return streams


def leave_commits(shop: Shop, product_ids: list[int]) -> int:
    """Leave while all connections to write are in a COMMIT."""
    with psycopg.connect(shop.proxy.url) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(1)")
        asked = ask_for_orders(shop, product_ids)
        wait_until(lambda: shop.connections(IN_COMMIT) == len(asked))
        return hang_up(asked)


def has_orders(count: int, shop: Shop) -> bool:
    """Whether so many orders are stored, each with its line."""
    query = "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM order_items)"
    return shop.sql(query) == [(count, count)]


@pytest.mark.costly
@in_all_variants
@pytest.mark.parametrize(
    ("leave", "placed"),
    [
        pytest.param(leave_the_queue, 100, id="queue"),
        pytest.param(leave_queries, 50, id="query"),
        pytest.param(leave_streams, 0, id="stream"),
        pytest.param(leave_commits, 100, id="commit"),
    ],
)
def test_a_hundred_clients_that_leave_cancel_nothing_and_nothing_is_kept(
    leave: Callable[[Shop, list[int]], int], placed: int, open_shop: OpenShop
) -> None:
    timeouts = {"DATABASE_LOCK_TIMEOUT": 60, "DATABASE_STATEMENT_TIMEOUT": 90}
    with open_shop(**timeouts, **PATIENTLY) as shop:
        # Orders of different products do not wait for each other.
        stock = 100
        client, left = shop.client(), 0
        ids = [create(client, stock).json()["id"] for _ in range(POOL_SIZE)]
        shop.sql(HELD_COMMIT)
        shop.sql(MANY_PRODUCTS)
        while left < 100:
            left += leave(shop, ids)
            wait_until(partial(has_orders, left * placed // 100, shop))
            wait_until(lambda: shop.gauges()["checked_out"] == 1)
        print(f"{left} have left, and their {placed} orders are stored")
        note(left=left)
        stocks = shop.sql("SELECT stock FROM products WHERE name = 'New'")
        assert stocks == [(stock - placed // POOL_SIZE,)] * POOL_SIZE
        assert "ERROR" not in shop.service.log
        assert_is_whole(shop)


def fill_both_workers(shop: Shop, ask: Callable[[], object]) -> None:
    """Ask, one request after the other, until all connections wait for the lock."""
    asked = 0

    def are_enough() -> bool:
        nonlocal asked
        if waiting_for_the_lock(shop) == 2 * POOL_SIZE:
            return True
        if asked < THREADS:
            ask()
            asked += 1
        return False

    wait_until(are_enough)


def test_sigterm_lets_the_requests_of_all_workers_end(open_shop: OpenShop) -> None:
    with (
        open_shop(**WORKERS, **PATIENTLY) as shop,
        ThreadPoolExecutor(THREADS) as threads,
    ):
        service = shop.service
        client = shop.client()
        asked: list[Future[Response]] = []
        with locked(shop):
            fill_both_workers(
                shop, lambda: asked.append(threads.submit(create, client))
            )
            os.kill(service.pid, signal.SIGTERM)
            wait_until(lambda: service.log.count("Shutting down") == 2)
        answers = [each.result() for each in asked]
        assert {each.status_code for each in answers} == {201}
        assert service.wait() in {0, -signal.SIGTERM}
        assert service.log.count("Application shutdown complete") == 2
        assert "ERROR" not in service.log
        wait_until(lambda: shop.connections() == 0)
        rows = shop.sql("SELECT sku FROM products WHERE name = 'New' ORDER BY 1")
        assert [sku for (sku,) in rows] == sorted(
            each.json()["sku"] for each in answers
        )
        assert shop.sql(ABANDONED) == [(0,)]


def test_who_cannot_end_in_time_is_told_no_success_and_saves_nothing(
    open_shop: OpenShop,
) -> None:
    graceful = 1
    settings = {**WORKERS, "UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN": graceful}
    settings |= {"DATABASE_LOCK_TIMEOUT": 60, "DATABASE_STATEMENT_TIMEOUT": 90}
    with open_shop(**settings) as shop, ExitStack() as connections:
        client, service = shop.client(), shop.service
        asked: list[socket.socket] = []

        def ask() -> None:
            request = sent(client, "POST /products", json.dumps(new_product()))
            asked.append(connections.enter_context(request))

        with locked(shop):
            fill_both_workers(shop, ask)
            os.kill(service.pid, signal.SIGTERM)
            begin = time.monotonic()
            service.wait()
            took = time.monotonic() - begin
            answers = [received(each) for each in asked]
        print(f"{took:.1f} s after SIGTERM all had ended, their answers were")
        print(Counter(each.partition(b"\r\n")[0] for each in answers))
        # Who waits in a thread cannot be told, and is cut off.
        told = [each for each in answers if each]
        assert all(each.startswith(b"HTTP/1.1 503") for each in told), told
        assert all(b"shutting-down" in each for each in told), told
        assert took < graceful + DRAIN + 2
        wait_until(lambda: shop.connections() == 0)
        assert shop.sql("SELECT count(*) FROM products WHERE name = 'New'") == [(0,)]


@contextmanager
def on_a_file(project: Path, folder: Path, **settings: Any) -> Iterator[Shop]:
    """Serve a project, by two workers, that has an SQLite database."""
    file = folder / "shop.db"
    url = f"sqlite:///{file}"
    run(project, *MIGRATE, DATABASE_URL=url)
    settings = {"ENVIRONMENT": "test", **WORKERS, **settings}

    def sql(statement: str) -> list[Any]:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            return connection.execute(statement).fetchall()

    with Service(project, DATABASE_URL=url, **settings) as service:
        yield Shop(service, Proxy(url), sql)


def buy_and_give(users: list[Somebody], scarce: int, number: int) -> list[Response]:
    """Order what there is too little of, and give money, 25 times each."""
    random = Random(number)
    client = users[number % len(users)].client
    others = [each.email for each in users if each.client is not client]
    answers = []
    for _ in range(25):
        answers.append(order(client, scarce))
        answers.append(
            transfer(client, random.choice(others), random.randint(1, 5_000))
        )
    return answers


def test_writers_of_one_file_lose_nothing_and_are_not_refused(
    project: Path, tmp_path: Path
) -> None:
    timeouts = {"DATABASE_LOCK_TIMEOUT": 30, "DATABASE_STATEMENT_TIMEOUT": PATIENCE}
    with (
        on_a_file(project, tmp_path, **timeouts, **PATIENTLY) as shop,
        ThreadPoolExecutor(8) as threads,
    ):
        users = [somebody(shop) for _ in range(4)]
        scarce = create(shop.client(), stock=100).json()["id"]
        work = partial(buy_and_give, users, scarce)
        answers = [each for some in threads.map(work, range(8)) for each in some]
        orders, transfers = (
            Counter(each.status_code for each in answers if each.url.path == path)
            for path in ("/orders", "/transfers")
        )
        slowest = max(each.elapsed.total_seconds() for each in answers)
        print(f"{orders=} {transfers=}, the slowest took {slowest:.2f} s")
        assert orders == {201: 100, 409: 100}
        assert transfers.keys() <= {201, 409}
        assert "database is locked" not in shop.service.log
        assert shop.sql(f"SELECT stock FROM products WHERE id = {scarce}") == [(0,)]
        assert shop.sql("SELECT sum(quantity) FROM order_items") == [(100,)]
        assert shop.sql("SELECT count(*) FROM transfers") == [(transfers[201],)]
        assert shop.sql("SELECT sum(balance) FROM users WHERE id <= 4") == [(40_000,)]
        assert shop.sql(WRONG_BALANCES) == []


def test_who_waits_too_long_for_a_file_is_told_to_try_again(
    project: Path, tmp_path: Path
) -> None:
    timeouts = {"DATABASE_LOCK_TIMEOUT": 1, "DATABASE_RETRY_DEADLINE": 1}
    with (
        on_a_file(project, tmp_path, **timeouts) as shop,
        ThreadPoolExecutor(8) as threads,
    ):
        client = shop.client()
        id = create(client).json()["id"]
        giver, taker = somebody(shop), somebody(shop)
        file = tmp_path / "shop.db"
        with closing(sqlite3.connect(file, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            asked = [threads.submit(order, client, id) for _ in range(7)]
            asked.append(threads.submit(transfer, giver.client, taker.email))
            assert client.get(f"/products/{id}").status_code == 200
            answers = [each.result() for each in asked]
        assert {each.status_code for each in answers} == {503}
        assert {each.json()["type"] for each in answers} == {"database-busy"}
        assert {each.headers["Retry-After"] for each in answers} == {"1"}
        assert_tells_nothing(answers)
        assert min(each.elapsed.total_seconds() for each in answers) >= 1
        assert order(client, id).status_code == 201
        assert transfer(giver.client, taker.email).status_code == 201


@pytest.fixture(scope="module")
def pooler(server: Server) -> Iterator[PgBouncer]:
    """A pooler with very few connections."""
    if not pgbouncer.program():
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    with PgBouncer(server.url, SERVER_CONNECTIONS) as pooler:
        yield pooler


@pytest.fixture
def open_pooled(
    project: Path, server: Server, stocked: str, pooler: PgBouncer
) -> OpenShop:
    """Opens a shop with more connections to the pooler than that has to the server."""
    settings = {"DATABASE_POOLER": "transaction", "DATABASE_POOL_SIZE": WRITERS // 2}
    return partial(directly, project, server, stocked, pooler, **settings)


def test_a_projects_own_tests_pass_behind_a_transaction_pooler(
    variant: Answers, bake: Bakery, server: Server, pooler: PgBouncer, tmp_path: Path
) -> None:
    project = shutil.copytree(bake(**variant, example=True), tmp_path / "project")
    output = run(
        project,
        *(sys.executable, "-m", "pytest", "--verbose", "-rs", "--maxfail=10"),
        *("-k", "postgresql"),
        TEST_DATABASE_URL=pooler.way_to(server.url),
        TEST_DATABASE_POOLER="transaction",
    )
    note(pooled=count_passed(output))
    for test in ("test_orders.py", "session/test_commit.py"):
        assert re.search(rf"{test}::\S+\[postgresql\] PASSED", output), test


def test_a_shop_works_behind_a_transaction_pooler(open_pooled: OpenShop) -> None:
    with open_pooled() as shop:
        test_server.test_what_takes_sessions_of_its_own_works(shop)
        test_server.test_what_was_created_is_found_at_once(shop)
        test_server.test_what_others_have_ordered_is_not_found(shop)
        test_server.test_an_order_is_saved_with_what_it_takes_or_not_at_all(shop)
        for fate in FATES:
            test_server.test_a_commit_that_fails_is_no_success_and_saves_nothing(
                *fate, shop
            )
        assert_is_whole(shop)


def test_everything_at_once_is_served_behind_a_transaction_pooler(
    open_pooled: OpenShop,
) -> None:
    with open_pooled(**PATIENTLY) as shop, ThreadPoolExecutor(WRITERS) as threads:
        users = [somebody(shop) for _ in range(3)]
        visit = partial(shopping, time.monotonic() + 4, users)
        answers = [each for some in threads.map(visit, range(WRITERS)) for each in some]
        statuses = Counter(each.status_code for each in answers)
        print(dict(statuses))
        assert statuses.keys() == {200, 201, 202, 404, 409}, statuses
        assert "prepared statement" not in shop.service.log
        assert shop.sql(BOOKS) == [(1_000_000,)]
        assert shop.sql(WRONG_BALANCES) == []
        assert_no_stream_is_left(shop)
        assert_is_whole(shop)
        assert shop.connections() <= SERVER_CONNECTIONS


def test_a_timeout_holds_behind_a_transaction_pooler_and_does_not_stick(
    open_pooled: OpenShop,
) -> None:
    timeouts = {"DATABASE_STATEMENT_TIMEOUT": 1, "DATABASE_LOCK_TIMEOUT": 0}
    names = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
    names += ["default_transaction_read_only", "transaction_isolation"]
    with open_pooled(**timeouts) as shop, ExitStack() as held:
        client, users = shop.client(), [somebody(shop) for _ in range(2)]
        with ThreadPoolExecutor(SERVER_CONNECTIONS) as threads, locked(shop):
            asks = [create, read, create, read]
            answers = list(threads.map(lambda ask: ask(client), asks))
        assert [each.status_code for each in answers] == [504] * SERVER_CONNECTIONS
        assert transfer(users[0].client, users[1].email).status_code == 201
        used = shop.sql(f"SELECT pid {CONNECTIONS}")
        assert len(used) == SERVER_CONNECTIONS
        found = []
        for _ in used:
            # Each keeps the connection that it got until all have one.
            plain = held.enter_context(psycopg.connect(shop.proxy.url))
            found += plain.execute("SELECT pg_backend_pid()").fetchall()
            for name in names:
                (value,) = plain.execute(f"SHOW {name}".encode()).fetchall()
                assert [value] == shop.sql(f"SHOW {name}"), name
        assert sorted(found) == sorted(used)
