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
from functools import partial
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
from tests.service import PATIENCE, Service, run, wait_until
from tests.template import COMBINATIONS, SLUG, Bakery, name_of

pytestmark = pytest.mark.slow

POOL_SIZE = 5
# A COMMIT that changes products takes its time, or fails with the state that is set.
SLOW_OR_FAILING_COMMIT = """
CREATE TABLE fate (sqlstate text);
CREATE FUNCTION meet_fate() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    code text := (SELECT sqlstate FROM fate);
BEGIN
    IF code IS NOT NULL THEN
        RAISE EXCEPTION 'this was not to be' USING ERRCODE = code;
    END IF;
    PERFORM pg_sleep(0.02);
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER fate AFTER INSERT OR UPDATE OR DELETE ON products
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION meet_fate();
INSERT INTO products (sku, name, price, stock) VALUES ('first', 'First', 100, 1);
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
    """The URL of a database to copy: migrated, with a product and the trigger."""
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


def new_product() -> dict[str, Any]:
    """Return a product that no other has the SKU of."""
    return {"sku": uuid4().hex, "name": "New", "price": 100, "stock": 1}


def read(client: Client) -> Response:
    """Read the product that there always is."""
    return client.get("/products/1")


def create(client: Client) -> Response:
    """Create a product."""
    return client.post("/products", json=new_product())


def read_or_create(client: Client, number: int) -> Response:
    """Read for an even number, create for an odd one."""
    return create(client) if number % 2 else read(client)


def sent(
    client: Client, request: str, body: str = "", missing: int = 0
) -> socket.socket:
    """Send a request, or all of it but some bytes; return where its answer comes."""
    address = urlsplit(str(client.base_url))
    head = [f"{request} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    head += [f"Content-Length: {len(body) + missing}", "", body]
    connection = socket.create_connection((address.hostname, address.port))
    connection.sendall("\r\n".join(head).encode())
    return connection


@contextmanager
def failing_commits(shop: Shop, sqlstate: str) -> Iterator[None]:
    """Let each COMMIT that changes products fail with that state."""
    shop.sql(f"INSERT INTO fate VALUES ('{sqlstate}')")
    try:
        yield
    finally:
        shop.sql("DELETE FROM fate")


@pytest.mark.parametrize(
    ("sqlstate", "status"), [("P0001", 500), ("23505", 409), ("40001", 503)]
)
def test_a_commit_that_fails_is_no_success_and_saves_nothing(
    sqlstate: str, status: int, shop: Shop
) -> None:
    client = shop.service.client()
    path = f"/products/{create(client).json()['id']}"
    stored = "SELECT * FROM products ORDER BY id"
    before = shop.sql(stored)
    with failing_commits(shop, sqlstate):
        answers = [
            create(client),
            client.post("/products/bulk", json=[new_product(), new_product()]),
            client.patch(path, json={"price": 200}),
            client.delete(path),
        ]
        assert shop.sql(stored) == before
    assert [answer.status_code for answer in answers] == [status] * 4
    assert [answer.json()["status"] for answer in answers] == [status] * 4
    assert [answer for answer in answers if "not to be" in answer.text] == []
    assert create(client).status_code == 201


def test_what_was_created_is_found_at_once(shop: Shop) -> None:
    writer, other = shop.service.client(), shop.service.client()
    found = Counter[int]()
    for _ in range(60):
        path = f"/products/{create(writer).json()['id']}"
        found.update(client.get(path).status_code for client in (writer, other))
    assert found == {200: 120}


@pytest.mark.parametrize(("ask", "round_trips"), [(read, 1), (create, 3)])
def test_no_round_trip_is_wasted(
    ask: Callable[[Client], Response], round_trips: int, shop: Shop
) -> None:
    client = shop.service.client()
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
    client = shop.service.client()
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
        ask = partial(read_or_create, shop.service.client())
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
        ask = partial(read_or_create, shop.service.client())
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


def visit(client: Client, number: int) -> int:
    """Send one of ten kinds of request; return the status, 0 if nobody waits for it."""
    match number % 10:
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
        case kind:
            request = f"{'GET' if kind == 7 else 'POST'} /products"
            body = json.dumps(new_product() | {"name": "Left"})
            with sent(client, request, body, missing=kind == 9):
                time.sleep(number % 47 / 1_000)  # It may be served meanwhile, or not.
            return 0
    return answer.status_code


def test_nothing_is_kept_of_many_requests_whoever_leaves(open_shop: OpenShop) -> None:
    with open_shop() as shop, ThreadPoolExecutor(50) as threads:
        visits = threads.map(partial(visit, shop.service.client()), range(2_000))
        answers = Counter(visits)
        assert answers == {200: 600, 201: 200, 404: 200, 409: 200, 422: 200, 0: 600}
        ((left,),) = shop.sql("SELECT count(*) FROM products WHERE name = 'Left'")
        assert left, "nobody left a request that was being served"
        wait_until(lambda: shop.gauges()["checked_out"] == 1)
        assert_is_whole(shop)


def test_nothing_is_kept_when_clients_leave_in_a_transaction(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop, ExitStack() as connections:
        client = shop.service.client()
        with locked(shop):
            for _ in range(POOL_SIZE):
                body = json.dumps(new_product())
                connections.enter_context(sent(client, "GET /products"))
                connections.enter_context(sent(client, "POST /products", body))
            wait_until(lambda: waiting_for_the_lock(shop) == 2 * POOL_SIZE)
            connections.close()
        wait_until(lambda: shop.gauges()["checked_out"] == 1)
        assert_is_whole(shop)


def test_sigterm_lets_requests_end_and_closes_all_connections(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop, ThreadPoolExecutor() as threads:
        client, service = shop.service.client(), shop.service
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
