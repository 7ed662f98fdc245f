"""A request takes no more round trips to PostgreSQL than it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from uuid import uuid4

import pytest
from httpx2 import Client, Response

from tests.postgres import Server
from tests.proxy import Proxy
from tests.shop import (
    ADA,
    Shop,
    create,
    join,
    new_product,
    opened_through_a_proxy,
    order,
    read,
    register,
    sign_in,
    transfer,
)
from tests.template import COMBINATIONS, Bakery, name_of

pytestmark = pytest.mark.slow


Proxied = tuple[Shop, Proxy]

TAGS = {"tags": ["red", "round"]}
# The products that there are from the start, and many more.
ORDERED = range(2, 102)


@pytest.fixture(scope="module", params=COMBINATIONS, ids=name_of)
def proxied(
    request: pytest.FixtureRequest, bake: Bakery, server: Server, stocked: str
) -> Iterator[Proxied]:
    """Each variant, with a single connection to write, behind a proxy that counts."""
    project = bake(**request.param, example=True)
    settings = {"DATABASE_POOL_SIZE": 1}
    with opened_through_a_proxy(project, server, stocked, **settings) as proxied:
        shop, _ = proxied
        shop.sql("ALTER TABLE products DISABLE TRIGGER fate")  # it sleeps
        client = shop.client()
        products = [new_product(stock=1_000) | TAGS for _ in ORDERED[1:]]
        assert client.post("/products/bulk", json=products).is_success
        assert register(client, ADA).is_success
        assert order(client, *ORDERED).is_success
        yield proxied


def create_many(client: Client) -> Response:
    """Create products, with tags that there are."""
    products = [new_product() | TAGS for _ in range(5)]
    return client.post("/products/bulk", json=products)


def change(client: Client) -> Response:
    """Change a product, to something that it was not."""
    return client.patch("/products/1", json={"name": uuid4().hex})


def stranger(path: str) -> Callable[[Client], Response]:
    """Return what asks without a token."""
    return lambda client: client.get(path, headers={"Authorization": ""})


def as_user(path: str) -> Callable[[Client], Response]:
    """Return what asks with a token."""
    return lambda client: client.get(path)


# BEGIN, and COMMIT or ROLLBACK, are round trips too. A fulfilment is missing, since it
# goes on after its response, and the export, whose driver fetches as it likes.
USER = 1
ROUND_TRIPS: dict[str, tuple[Callable[[Client], Response], int]] = {
    "register": (join, 3),
    "sign in": (lambda client: sign_in(client, ADA), 1),
    "show oneself": (as_user("/users/me"), 1),
    "transfer": (lambda client: transfer(client, ADA, 1), 5),
    "read": (read, 1),
    "list": (stranger("/products"), 3),
    "list what was ordered": (as_user("/products"), 3 + USER),
    "create": (create, 3 + USER),
    # Tags, a savepoint, products and their tags.
    "create many": (create_many, 7 + USER),
    "change": (change, 5 + USER),
    # Products are locked, then changed; the order is stored, and its lines.
    "order 1 line": (lambda client: order(client, *ORDERED[:1]), 6 + USER),
    "order 5 lines": (lambda client: order(client, *ORDERED[:5]), 6 + USER),
    "order 100 lines": (lambda client: order(client, *ORDERED), 6 + USER),
    "list orders": (as_user("/orders"), 4 + USER),
    "show an order": (as_user("/orders/1"), 4 + USER),
    "liveness": (stranger("/health/live"), 0),
    "readiness": (stranger("/health/ready"), 3),
    "gauges": (stranger("/health/database"), 1),
}


@pytest.mark.parametrize("what", ROUND_TRIPS)
def test_no_round_trip_is_wasted(what: str, proxied: Proxied) -> None:
    shop, proxy = proxied
    ask, round_trips = ROUND_TRIPS[what]
    client = shop.client()
    assert proxy.count(partial(ask, client), times=10) == 10 * round_trips
