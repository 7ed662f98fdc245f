"""Clients leave without their answers: nothing is cancelled, and nothing is kept."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import psycopg
import pytest
from httpx2 import Client

from tests.attacks import in_all_variants
from tests.evidence import note
from tests.service import PATIENCE, wait_until
from tests.shop import (
    BOOKS,
    MANY_PRODUCTS,
    PATIENTLY,
    PLENTY,
    POOL_SIZE,
    OpenShop,
    Shop,
    an_order,
    assert_is_whole,
    create,
    locked,
    new_product,
    order,
    read,
    received,
    sent,
    stalled_stream,
    waiting_for_the_lock,
)

pytestmark = pytest.mark.slow

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
    with psycopg.connect(shop.url) as holder:
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
