"""Services under uvicorn, on PostgreSQL: what a client and the server see of them."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from httpx2 import Client, Response

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
from tests.template import COMBINATIONS, SLUG, Bakery, name_of

pytestmark = pytest.mark.slow

POOL_SIZE = 5
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
    migrate = (sys.executable, "-m", "alembic", "upgrade", "head")
    run(bake(**COMBINATIONS[0], example=True), *migrate, DATABASE_URL=url)
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


@pytest.fixture(params=[COMBINATIONS[0], COMBINATIONS[-1]], ids=name_of)
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
    assert gauges["checked_out"] == 1  # The one that answers.
    assert shop.connections("state LIKE 'idle in transaction%'") == 0
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


def test_nothing_is_kept_when_clients_leave_in_a_transaction(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop, ExitStack() as connections:
        client = shop.client()
        with locked(shop):
            for _ in range(POOL_SIZE):
                body = json.dumps(new_product())
                connections.enter_context(sent(client, "GET /products"))
                connections.enter_context(sent(client, "POST /products", body))
            wait_until(lambda: waiting_for_the_lock(shop) == 2 * POOL_SIZE)
            connections.close()
        wait_until(lambda: shop.gauges()["checked_out"] == 1)
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
