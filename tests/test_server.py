"""Services under uvicorn, on PostgreSQL: what a client and the server see of them."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from httpx2 import Client, Response

from tests.evidence import note
from tests.postgres import Server
from tests.proxy import Proxy
from tests.service import (
    PATIENCE,
    Service,
    register,
    run,
    sign_in,
    token_of_somebody_new,
    wait_until,
)
from tests.template import (
    COMBINATIONS,
    EXTREMES,
    PAIRS,
    SLUG,
    Answers,
    Bakery,
    name_of,
)

pytestmark = pytest.mark.slow

MIGRATE = (sys.executable, "-m", "alembic", "upgrade", "head")
POOL_SIZE = 5
# What is slow on a busy machine is not wrong.
PATIENTLY = {"DATABASE_POOL_TIMEOUT": PATIENCE, "DATABASE_RETRY_DEADLINE": PATIENCE}
ADA = "ada@example.com"
# A COMMIT that changes products takes its time; one that changes products, or orders,
# fails with the state that is set for them.
SLOW_OR_FAILING_COMMIT = """
CREATE TABLE fate (relation name, sqlstate text);
CREATE FUNCTION meet_fate() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    code text := (SELECT sqlstate FROM fate WHERE relation = TG_TABLE_NAME);
BEGIN
    IF code IS NOT NULL THEN
        RAISE EXCEPTION 'this was not to be' USING ERRCODE = code;
    END IF;
    PERFORM pg_sleep(TG_ARGV[0]::float);
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER fate AFTER INSERT OR UPDATE OR DELETE ON products
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION meet_fate(0.02);
CREATE CONSTRAINT TRIGGER fate AFTER INSERT OR UPDATE OR DELETE ON orders
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION meet_fate(0);
INSERT INTO products (sku, name, price, stock)
    VALUES ('first', 'First', 100, 1), ('plenty', 'Plenty', 100, 1000000);
"""
PLENTY = 2
# What is left of plenty, and what is ordered of it, together.
BOOKS = f"""
SELECT stock + (SELECT sum(quantity) FROM order_items WHERE product_id = products.id)
FROM products WHERE id = {PLENTY}
"""
# The service's own, by the name that it gives them.
CONNECTIONS = f"""
FROM pg_stat_activity
WHERE datname = current_database() AND application_name = '{SLUG}'
"""
# The first COMMIT of a transfer kills its own connection; the sequence counts them all.
DEADLY_COMMIT = """
CREATE SEQUENCE commits;
CREATE FUNCTION die_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('commits') = 1 THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER die AFTER INSERT ON transfers
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die_once();
"""
# Users whose balance is not what they began with and were given, less what they gave.
WRONG_BALANCES = """
SELECT email FROM users WHERE balance <> 10000
    + (SELECT coalesce(sum(amount), 0) FROM transfers WHERE recipient_id = users.id)
    - (SELECT coalesce(sum(amount), 0) FROM transfers WHERE sender_id = users.id)
"""
# So many that no buffer between the service and its client takes them all; without
# the trigger, which would sleep for each.
ROWS = 30_000
MANY_PRODUCTS = f"""
SET session_replication_role = replica;
INSERT INTO products (sku, name, price, stock)
SELECT 'many-' || number, repeat('n', 200), 100, 1
FROM generate_series(1, {ROWS}) AS number
"""
FINAL_CHUNK = b"0\r\n\r\n"
# Connections that a client has lost rather than closed.
ABANDONED = """
SELECT sessions_abandoned FROM pg_stat_database WHERE datname = current_database()
"""


@dataclass(frozen=True)
class Shop:
    """A service, the way to its database, and the database itself."""

    service: Service
    proxy: Proxy
    sql: Callable[[str], list[Any]]

    @cached_property
    def token(self) -> str:
        """Whose the clients are; it is made once, since hashing takes its time."""
        return token_of_somebody_new(self.service.client())

    def client(self) -> Client:
        """Return a client that is signed in, with connections of its own."""
        return self.service.client(self.token)

    def connections(self, that: str = "true") -> int:
        """Return how many connections, or how many that are so, PostgreSQL counts."""
        ((count,),) = self.sql(f"SELECT count(*) {CONNECTIONS} AND {that}")
        return int(count)

    def gauges(self) -> dict[str, int]:
        """Return what the service says of its pools."""
        answer = self.service.client().get("/health/database")
        assert answer.status_code == 200, answer.text
        gauges: dict[str, int] = answer.json()
        return gauges


OpenShop = Callable[..., AbstractContextManager[Shop]]


@pytest.fixture(scope="session")
def stocked(bake: Bakery, server: Server) -> str:
    """The URL of a database to copy: migrated, with two products and the trigger."""
    url = server.create_database()
    run(bake(**COMBINATIONS[0], example=True), *MIGRATE, DATABASE_URL=url)
    server.execute(SLOW_OR_FAILING_COMMIT, url)
    return url


@contextmanager
def opened(
    project: Path, server: Server, stocked: str, **settings: Any
) -> Iterator[Shop]:
    """Serve a project on a database of its own."""
    url = server.create_database(template=stocked)
    settings = {"ENVIRONMENT": "test"} | settings
    with (
        Proxy(url) as proxy,
        Service(project, DATABASE_URL=proxy.url, **settings) as service,
    ):
        yield Shop(service, proxy, partial(server.execute, url=url))


@pytest.fixture(scope="module", params=COMBINATIONS, ids=name_of)
def shop(
    request: pytest.FixtureRequest, bake: Bakery, server: Server, stocked: str
) -> Iterator[Shop]:
    """Each variant, with a single connection to write: who keeps it is found out."""
    project = bake(**request.param, example=True)
    with opened(project, server, stocked, DATABASE_POOL_SIZE=1) as shop:
        yield shop


@pytest.fixture(params=EXTREMES, ids=name_of)
def open_shop(
    request: pytest.FixtureRequest, bake: Bakery, server: Server, stocked: str
) -> OpenShop:
    """An asynchronous and a synchronous variant, under load and on a small pool."""
    project = bake(**request.param, example=True)
    return partial(opened, project, server, stocked, DATABASE_POOL_SIZE=POOL_SIZE)


def new_product(stock: int = 1) -> dict[str, Any]:
    """Return a product that no other has the SKU of."""
    return {"sku": uuid4().hex, "name": "New", "price": 100, "stock": stock}


def read(client: Client) -> Response:
    """Read the product that there always is."""
    return client.get("/products/1")


def create(client: Client, stock: int = 1) -> Response:
    """Create a product."""
    return client.post("/products", json=new_product(stock))


def read_or_create(client: Client, number: int) -> Response:
    """Read for an even number, create for an odd one."""
    return create(client) if number % 2 else read(client)


def an_order(*product_ids: int, quantity: int = 1) -> dict[str, Any]:
    """Return an order of products, the same quantity of each."""
    lines = [{"product_id": id, "quantity": quantity} for id in product_ids]
    return {"items": lines}


def order(client: Client, *product_ids: int) -> Response:
    """Order one of each product."""
    return client.post("/orders", json=an_order(*product_ids))


def transfer(client: Client, email: str, amount: int = 100) -> Response:
    """Give money to another user."""
    gift = {"recipient_email": email, "amount": amount}
    return client.post("/transfers", json=gift)


def export(client: Client) -> Response:
    """Read all products."""
    return client.get("/products/export")


def fulfil(client: Client, id: int) -> Response:
    """Have an order sent."""
    return client.post(f"/orders/{id}/fulfilment")


def join(client: Client) -> Response:
    """Register somebody new."""
    return register(client, f"{uuid4()}@example.com")


def sent(
    client: Client, request: str, body: str = "", missing: int = 0
) -> socket.socket:
    """Send a request, or all of it but some bytes; return where its answer comes."""
    address = urlsplit(str(client.base_url))
    head = [f"{request} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    head += [f"Authorization: {client.headers['Authorization']}"]
    head += [f"Content-Length: {len(body) + missing}", "", body]
    connection = socket.create_connection((address.hostname, address.port))
    connection.sendall("\r\n".join(head).encode())
    return connection


@dataclass(frozen=True)
class Somebody:
    """A user of a shop, signed in."""

    email: str
    client: Client


def somebody(shop: Shop) -> Somebody:
    """Return somebody new, whose balance is 10,000."""
    email = f"{uuid4()}@example.com"
    stranger = shop.service.client()
    assert register(stranger, email).status_code == 201
    token = sign_in(stranger, email).json()["access_token"]
    return Somebody(email, shop.service.client(token))


@contextmanager
def failing_commits(
    shop: Shop, sqlstate: str, relation: str = "products"
) -> Iterator[None]:
    """Let each COMMIT that changes products, or orders, fail with that state."""
    shop.sql(f"INSERT INTO fate VALUES ('{relation}', '{sqlstate}')")
    try:
        yield
    finally:
        shop.sql("DELETE FROM fate")


def stored(shop: Shop) -> list[Any]:
    """Return all that products and orders are made of."""
    tables = ("products", "orders", "order_items")
    return [shop.sql(f"SELECT * FROM {table} ORDER BY id") for table in tables]


@pytest.mark.parametrize(
    ("sqlstate", "status"), [("P0001", 500), ("23505", 409), ("40001", 503)]
)
def test_a_commit_that_fails_is_no_success_and_saves_nothing(
    sqlstate: str, status: int, shop: Shop
) -> None:
    client = shop.client()
    product = create(client).json()["id"]
    path = f"/products/{product}"
    before = stored(shop)
    with failing_commits(shop, sqlstate):
        answers = [
            create(client),
            client.post("/products/bulk", json=[new_product(), new_product()]),
            client.patch(path, json={"price": 200}),
            client.delete(path),
            order(client, product),
        ]
        assert stored(shop) == before
    assert [answer.status_code for answer in answers] == [status] * 5
    assert [answer.json()["status"] for answer in answers] == [status] * 5
    assert [answer for answer in answers if "not to be" in answer.text] == []
    assert create(client).status_code == 201
    assert order(client, product).status_code == 201


def test_an_order_is_saved_with_what_it_takes_or_not_at_all(shop: Shop) -> None:
    client = shop.client()
    before = stored(shop)
    for relation in ("products", "orders"):
        with failing_commits(shop, "23505", relation):
            assert order(client, 1, PLENTY).status_code == 409
            assert stored(shop) == before


def test_what_was_created_is_found_at_once(shop: Shop) -> None:
    writer, other = shop.client(), shop.client()
    found = Counter[int]()
    for _ in range(60):
        path = f"/products/{create(writer).json()['id']}"
        found.update(client.get(path).status_code for client in (writer, other))
    assert found == {200: 120}


def test_what_others_have_ordered_is_not_found(shop: Shop) -> None:
    client = shop.client()
    other = shop.service.client(token_of_somebody_new(client))
    path = f"/orders/{order(client, PLENTY).json()['id']}"
    for _ in range(2):  # Nor is it when its user has just read it.
        assert client.get(path).status_code == 200
        assert other.get(path).status_code == 404
    assert other.get("/orders").json()["items"] == []


def test_what_takes_sessions_of_its_own_works(shop: Shop) -> None:
    client = shop.client()
    path = f"/orders/{order(client, PLENTY).json()['id']}"
    assert client.post(f"{path}/fulfilment").status_code == 202
    wait_until(lambda: client.get(path).json()["status"] == "fulfilled", patience=10)
    register(client, ADA)
    given = transfer(client, ADA)
    assert given.status_code == 201
    assert given.json() == {"amount": 100, "balance": 9_900}
    assert shop.sql("SELECT amount FROM transfers") == [(100,)]
    exported = [json.loads(line)["id"] for line in export(client).text.splitlines()]
    assert exported == [id for (id,) in shop.sql("SELECT id FROM products ORDER BY 1")]
    wait_until(lambda: shop.gauges()["checked_out"] == 1)


# Creating takes BEGIN, INSERT and COMMIT, and a SELECT for the user.
@pytest.mark.parametrize(("ask", "round_trips"), [(read, 1), (create, 3 + 1)])
def test_no_round_trip_is_wasted(
    ask: Callable[[Client], Response], round_trips: int, shop: Shop
) -> None:
    client = shop.client()
    for _ in range(10):
        ask(client)
    shop.proxy.reset()
    for _ in range(10):
        assert ask(client).is_success
    assert shop.proxy.round_trips == 10 * round_trips


@contextmanager
def locked(shop: Shop) -> Iterator[None]:
    """Keep all requests from the products as long as it lasts."""
    with psycopg.connect(shop.proxy.url) as connection:
        connection.execute("LOCK TABLE products")
        yield


def waiting_for_the_lock(shop: Shop) -> int:
    """Return how many connections wait until it is unlocked."""
    return shop.connections("wait_event_type = 'Lock'")


def assert_is_whole(shop: Shop) -> None:
    """Check that nothing is kept, and that everything works."""
    client = shop.client()
    answers = [read_or_create(client, number) for number in range(20)]
    assert Counter(answer.status_code for answer in answers) == {200: 10, 201: 10}
    gauges = shop.gauges()
    assert gauges["waiting"] == 0
    # One of them is the one that answers.
    leaked = gauges["checked_out"] - 1
    leaked += shop.connections("state LIKE 'idle in transaction%'")
    note(leaked=leaked)
    assert leaked == 0
    assert 0 < shop.connections() <= 2 * POOL_SIZE + 1


def test_a_burst_on_a_small_pool_is_served(open_shop: OpenShop) -> None:
    with (
        open_shop(DATABASE_POOL_TIMEOUT=PATIENCE) as shop,
        ThreadPoolExecutor(200) as threads,
    ):
        ask = partial(read_or_create, shop.client())
        with locked(shop):
            burst = [threads.submit(ask, number) for number in range(200)]
            wait_until(lambda: waiting_for_the_lock(shop) == 2 * POOL_SIZE)
        answers = Counter(asked.result().status_code for asked in burst)
        assert answers == {200: 100, 201: 100}
        assert_is_whole(shop)


def test_a_burst_on_a_blocked_pool_is_refused_in_time(open_shop: OpenShop) -> None:
    timeout = 5
    timeouts = {
        "DATABASE_POOL_TIMEOUT": timeout,
        "DATABASE_LOCK_TIMEOUT": 60,
        "DATABASE_STATEMENT_TIMEOUT": 90,
    }
    with open_shop(**timeouts) as shop, ThreadPoolExecutor(200) as threads:
        ask = partial(read_or_create, shop.client())
        with locked(shop):
            burst = [threads.submit(ask, number) for number in range(200)]
            ended = as_completed(burst, timeout=PATIENCE)
            refused = [each.result() for each in islice(ended, 200 - 2 * POOL_SIZE)]
        served = [each.result() for each in ended]
        assert {answer.status_code for answer in refused} == {503}
        assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
        slowest = max(answer.elapsed.total_seconds() for answer in refused)
        assert timeout <= slowest < timeout + 5
        assert Counter(answer.status_code for answer in served) == {200: 5, 201: 5}
        assert_is_whole(shop)


def leave(
    client: Client, request: str, body: object, pause: float, missing: int = 0
) -> int:
    """Send a request and go; return 0, which is no status."""
    with sent(client, request, json.dumps(body), missing):
        time.sleep(pause)  # It may be served meanwhile, or not.
    return 0


def visit(client: Client, number: int) -> int:
    """Send one of twelve kinds of request; return the status, 0 if nobody waits."""
    left, pause = new_product() | {"name": "Left"}, number % 47 / 1_000
    match number % 12:
        case 0:
            answer = read(client)
        case 1:
            answer = create(client)
        case 2:
            answer = client.get("/products", params={"search": "new"})
        case 3:
            answer = client.get("/products/999999")
        case 4:
            answer = client.post("/products", json={})
        case 5:
            answer = client.post("/products", json=new_product() | {"sku": "first"})
        case 6:
            answer = client.patch("/products/1", json={"stock": number})
        case 7:
            answer = order(client, PLENTY)
        case 8:
            return leave(client, "GET /products", left, pause)
        case 9:
            return leave(client, "POST /products", left, pause)
        case 10:
            return leave(client, "POST /products", left, pause, missing=1)
        case _:
            return leave(client, "POST /orders", an_order(PLENTY, quantity=2), pause)
    return answer.status_code


def test_nothing_is_kept_of_many_requests_whoever_leaves(open_shop: OpenShop) -> None:
    with open_shop() as shop, ThreadPoolExecutor(50) as threads:
        visits = threads.map(partial(visit, shop.client()), range(2_400))
        answers = Counter(visits)
        assert answers == {200: 600, 201: 400, 404: 200, 409: 200, 422: 200, 0: 800}
        wait_until(lambda: shop.gauges()["checked_out"] == 1)
        for left in ("products WHERE name = 'Left'", "order_items WHERE quantity = 2"):
            ((count,),) = shop.sql(f"SELECT count(*) FROM {left}")
            assert count, "nobody left a request that was being served"
        assert shop.sql(BOOKS) == [(1_000_000,)]
        assert_is_whole(shop)


def answers_at_once(
    shop: Shop, times: int, ask: Callable[[int], Response]
) -> Counter[int]:
    """Call `ask` with 0, 1, 2, … and count the statuses; all begin at one moment."""
    with ThreadPoolExecutor(times) as threads:
        with locked(shop):
            asked = [threads.submit(ask, number) for number in range(times)]
            wait_until(lambda: waiting_for_the_lock(shop) == POOL_SIZE)
        return Counter(each.result().status_code for each in asked)


def test_nothing_is_sold_twice(open_shop: OpenShop) -> None:
    with open_shop() as shop:
        client = shop.client()
        scarce = create(client, stock=10).json()["id"]
        answers = answers_at_once(shop, 40, lambda _: order(client, scarce))
        assert answers == {201: 10, 409: 30}
        assert shop.sql(f"SELECT stock FROM products WHERE id = {scarce}") == [(0,)]
        assert shop.sql("SELECT count(*), sum(total) FROM orders") == [(10, 1_000)]
        assert shop.sql("SELECT sum(quantity) FROM order_items") == [(10,)]
        assert_is_whole(shop)


def test_orders_of_the_same_products_do_not_block_each_other(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop:
        client = shop.client()
        products = [create(client, stock=60).json()["id"] for _ in range(2)]

        def order_crosswise(number: int) -> Response:
            return order(client, *products[:: 1 if number % 2 else -1])

        assert answers_at_once(shop, 60, order_crosswise) == {201: 60}
        left = shop.sql("SELECT stock FROM products WHERE name = 'New'")
        assert left == [(0,), (0,)]
        assert_is_whole(shop)


def give(end: float, most: int, users: list[Somebody], number: int) -> Counter[int]:
    """Give money from one user to another until the end; count the statuses."""
    answers = Counter[int]()
    random = Random(number)
    while time.monotonic() < end and answers.total() < most:
        sender, recipient = random.sample(users, 2)
        given = transfer(sender.client, recipient.email, random.randint(1, 9_000))
        answers[given.status_code] += 1
    return answers


@pytest.mark.parametrize(
    ("combination", "most"),
    [(each, 10_000 if each in PAIRS else 2) for each in COMBINATIONS],
    ids=map(name_of, COMBINATIONS),
)
def test_no_transfer_is_lost_made_twice_or_fails(
    combination: Answers, most: int, bake: Bakery, server: Server, stocked: str
) -> None:
    project = bake(**combination, example=True)
    with (
        opened(project, server, stocked, **PATIENTLY) as shop,
        ThreadPoolExecutor(50) as threads,
    ):
        users = [somebody(shop) for _ in range(4)]
        giving = partial(give, time.monotonic() + 10, most, users)
        answers = sum(threads.map(giving, range(50)), Counter[int]())
        retries = shop.service.log.count("others were in the way")
        print(dict(answers), "retries:", retries)
        note(transfers=answers[201])
        assert answers.keys() == {201, 409}, answers
        assert retries, "nobody was in the way of anybody"
        assert shop.sql("SELECT count(*) FROM transfers") == [(answers[201],)]
        assert shop.sql("SELECT sum(balance) FROM users") == [(40_000,)]
        assert shop.sql(WRONG_BALANCES) == []
        assert_is_whole(shop)


def test_a_transfer_is_not_made_again_if_it_may_be_saved(open_shop: OpenShop) -> None:
    with open_shop() as shop:
        sender, recipient = somebody(shop), somebody(shop)
        shop.sql(DEADLY_COMMIT)
        lost = transfer(sender.client, recipient.email)
        assert lost.status_code == 503, lost.text
        assert lost.json()["type"].endswith("commit-outcome-unknown")
        assert "Retry-After" not in lost.headers
        assert shop.sql("SELECT last_value FROM commits") == [(1,)]
        assert shop.sql("SELECT count(*) FROM transfers") == [(0,)]
        assert transfer(sender.client, recipient.email).status_code == 201
        assert shop.sql(WRONG_BALANCES) == []
        assert_is_whole(shop)


@contextmanager
def waiting_transfer(
    shop: Shop,
) -> Iterator[tuple[psycopg.Connection[Any], Somebody, Future[Response]]]:
    """Give the holder of the recipient's row, the sender, and what waits for the row.

    It has to be made in the end, once.
    """
    sender, recipient = somebody(shop), somebody(shop)
    with ThreadPoolExecutor() as threads, psycopg.connect(shop.proxy.url) as holder:
        lock_row(holder, recipient)
        made = threads.submit(transfer, sender.client, recipient.email)
        wait_until(lambda: waiting_for_the_lock(shop) == 1)
        yield holder, sender, made
    assert made.result().status_code == 201, made.result().text
    assert shop.sql("SELECT amount FROM transfers") == [(100,)]
    assert shop.sql(WRONG_BALANCES) == []
    assert_is_whole(shop)


def lock_row(connection: psycopg.Connection[Any], user: Somebody) -> None:
    """Lock a user's row until the connection's transaction ends."""
    query = "SELECT FROM users WHERE email = %s FOR UPDATE"
    connection.execute(query, [user.email])


def test_a_transfer_is_made_again_if_its_connection_is_lost(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop, waiting_transfer(shop) as (_, _, made):
        waits = "wait_event_type = 'Lock'"
        ((pid,),) = shop.sql(f"SELECT pid {CONNECTIONS} AND {waits}")
        shop.sql(f"SELECT pg_terminate_backend({pid})")
        again = f"{waits} AND pid <> {pid}"
        wait_until(lambda: made.done() or shop.connections(again) == 1)
        assert not made.done(), made.result().text


def test_a_transfer_is_made_again_after_a_deadlock(open_shop: OpenShop) -> None:
    with open_shop() as shop:
        with waiting_transfer(shop) as (holder, sender, _):
            # Who has waited for a second looks for a deadlock, and is its victim.
            holder.execute("SET LOCAL deadlock_timeout = '1min'")
            lock_row(holder, sender)
        deadlocks = "SELECT deadlocks FROM pg_stat_database"
        deadlocks += " WHERE datname = current_database()"
        wait_until(lambda: shop.sql(deadlocks) == [(1,)])


@contextmanager
def stalled_stream(shop: Shop) -> Iterator[socket.socket]:
    """Give the connection of a client that has read a little of the export only."""
    with sent(shop.client(), "GET /products/export") as connection:
        connection.settimeout(PATIENCE)
        begin = b""
        while begin.count(b"\n{") < 10:
            begin += connection.recv(1_000)
        assert begin.startswith(b"HTTP/1.1 200 ")
        yield connection


def received(connection: socket.socket) -> bytes:
    """Return all that comes until the server hangs up."""
    return b"".join(iter(partial(connection.recv, 2**20), b""))


def assert_no_stream_is_left(shop: Shop) -> None:
    """Check that the streams' connections are back in the pool, or soon are."""
    wait_until(lambda: shop.gauges()["checked_out"] == 1, patience=10)
    assert shop.connections("state LIKE 'idle in transaction%'") == 0


def test_a_stream_is_complete_and_ends_when_its_reader_goes(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop:
        shop.sql(MANY_PRODUCTS)
        everything = export(shop.client())
        assert everything.headers["Transfer-Encoding"] == "chunked"
        ids = [json.loads(line)["id"] for line in everything.text.splitlines()]
        assert len(ids) == len(set(ids)) == ROWS + 2
        for _ in range(3):
            with stalled_stream(shop):
                assert shop.gauges()["checked_out"] == 2
            assert_no_stream_is_left(shop)
        assert_is_whole(shop)


def test_a_stream_that_takes_too_long_is_visibly_cut(open_shop: OpenShop) -> None:
    with open_shop(DATABASE_STREAM_TIMEOUT=1) as shop:
        shop.sql(MANY_PRODUCTS)
        with stalled_stream(shop) as connection:
            assert shop.gauges()["checked_out"] == 2
            assert_no_stream_is_left(shop)
            body = received(connection)
        assert body.count(b"\n{") < ROWS - 10
        assert not body.endswith(FINAL_CHUNK)
        assert_is_whole(shop)


def test_a_stream_that_loses_its_connection_is_visibly_cut(open_shop: OpenShop) -> None:
    with open_shop() as shop:
        shop.sql(MANY_PRODUCTS)
        with stalled_stream(shop) as connection:
            ((killed,),) = shop.sql(f"""
                SELECT pg_terminate_backend(pid) {CONNECTIONS}
                AND backend_xmin IS NOT NULL
            """)
            assert killed
            body = received(connection)
        assert body.count(b"\n{") < ROWS - 10
        assert not body.endswith(FINAL_CHUNK)
        assert_no_stream_is_left(shop)
        assert_is_whole(shop)


def test_stalled_streams_leave_places_to_others(open_shop: OpenShop) -> None:
    timeout = 2
    with (
        open_shop(DATABASE_POOL_TIMEOUT=timeout) as shop,
        ExitStack() as streams,
        ThreadPoolExecutor(20) as threads,
    ):
        client = shop.client()
        shop.sql(MANY_PRODUCTS)
        for _ in range(POOL_SIZE // 2):
            streams.enter_context(stalled_stream(shop))
        third = threads.submit(export, client)
        wait_until(lambda: shop.gauges()["waiting"] == 1)
        others = list(threads.map(partial(read_or_create, client), range(40)))
        assert Counter(each.status_code for each in others) == {200: 20, 201: 20}
        assert not third.done()
        assert third.result().status_code == 503
        assert third.result().headers["Retry-After"] == "1"
        assert timeout <= third.result().elapsed.total_seconds() < timeout + 2
        assert shop.gauges()["checked_out"] == POOL_SIZE // 2 + 1
        streams.close()
        assert_no_stream_is_left(shop)
        assert export(client).status_code == 200
        assert_is_whole(shop)


def shopping(end: float, users: list[Somebody], number: int) -> list[Response]:
    """Do what users do until it ends; return the answers."""
    random = Random(number)
    client, placed = users[number % len(users)].client, 1
    answers = []
    while time.monotonic() < end:
        match random.randrange(20):
            case 0:
                answer = export(client)
            case 1 | 2 | 3:
                answer = create(client)
            case 4 | 5 | 6:
                answer = order(client, PLENTY)
                placed = answer.json().get("id", placed)
            case 7 | 8 | 9:
                answer = fulfil(client, placed)
            case 10 | 11 | 12:
                others = [each for each in users if each.client is not client]
                answer = transfer(client, random.choice(others).email, 4_000)
            case _:
                answer = read(client)
        answers.append(answer)
    return answers


def test_everything_at_once_is_served(open_shop: OpenShop) -> None:
    with (
        open_shop(**PATIENTLY) as shop,
        ThreadPoolExecutor(100) as threads,
    ):
        users = [somebody(shop) for _ in range(3)]
        visit = partial(shopping, time.monotonic() + 5, users)
        answers = [each for some in threads.map(visit, range(100)) for each in some]
        statuses = Counter(each.status_code for each in answers)
        assert statuses.keys() == {200, 201, 202, 404, 409}, statuses
        assert max(each.elapsed.total_seconds() for each in answers) < PATIENCE
        assert shop.sql(BOOKS) == [(1_000_000,)]
        assert shop.sql(WRONG_BALANCES) == []
        assert_no_stream_is_left(shop)
        assert_is_whole(shop)


def test_nobody_waits_until_passwords_are_hashed(open_shop: OpenShop) -> None:
    with open_shop() as shop, ThreadPoolExecutor(20) as threads:
        client = shop.client()
        register(client, ADA)
        enter = partial(sign_in, client, ADA)
        for hash_for, ask in [(enter, read), (partial(join, client), create)]:
            entering = [threads.submit(hash_for) for _ in range(20)]
            next(as_completed(entering))
            assert ask(client).is_success
            # Those that hash had the places, if hashing needed one.
            assert sum(not each.done() for each in entering) > POOL_SIZE
            burst = [read_or_create(client, number) for number in range(20)]
            answers = [*burst, *(each.result() for each in entering)]
            assert [answer for answer in answers if not answer.is_success] == []
        assert_is_whole(shop)


def test_a_full_pool_delays_only_those_who_need_it(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop, ThreadPoolExecutor(POOL_SIZE + 1) as threads:
        client = shop.client()
        register(client, ADA)
        enter, hello = partial(sign_in, client, ADA), partial(join, client)
        for fill, served, delayed in [(create, enter, hello), (read, hello, enter)]:
            with locked(shop):
                asked = [threads.submit(fill, client) for _ in range(POOL_SIZE)]
                wait_until(lambda: waiting_for_the_lock(shop) == POOL_SIZE)
                asked.append(threads.submit(delayed))
                assert served().is_success
                assert create(shop.service.client()).status_code == 401
                assert not asked[-1].done()
            assert [each for each in asked if not each.result().is_success] == []
        assert_is_whole(shop)


def test_sigterm_lets_requests_end_and_closes_all_connections(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop, ThreadPoolExecutor() as threads:
        client, service = shop.client(), shop.service
        with locked(shop):
            last = threads.submit(create, client)
            wait_until(lambda: waiting_for_the_lock(shop) == 1)
            service.signal(signal.SIGTERM)
            wait_until(lambda: "Shutting down" in service.log)
        assert last.result().status_code == 201
        # Uvicorn ends by the signal itself, once it has cleaned up.
        assert service.wait() in {0, -signal.SIGTERM}
        assert "Application shutdown complete" in service.log
        assert "ERROR" not in service.log
        wait_until(lambda: shop.connections() == 0)
        assert shop.sql(ABANDONED) == [(0,)]
