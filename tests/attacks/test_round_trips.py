"""A request takes no more round trips to PostgreSQL than it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from httpx2 import Client, Response

from tests.postgres import Server
from tests.proxy import Proxy
from tests.shop import Shop, create, opened_through_a_proxy, read
from tests.template import COMBINATIONS, Bakery, name_of

pytestmark = pytest.mark.slow


Proxied = tuple[Shop, Proxy]


@pytest.fixture(scope="module", params=COMBINATIONS, ids=name_of)
def proxied(
    request: pytest.FixtureRequest, bake: Bakery, server: Server, stocked: str
) -> Iterator[Proxied]:
    """Each variant, with a single connection to write, behind a proxy that counts."""
    project = bake(**request.param, example=True)
    settings = {"DATABASE_POOL_SIZE": 1}
    with opened_through_a_proxy(project, server, stocked, **settings) as proxied:
        yield proxied


# Creating takes BEGIN, INSERT and COMMIT, and a SELECT for the user.
@pytest.mark.parametrize(("ask", "round_trips"), [(read, 1), (create, 3 + 1)])
def test_no_round_trip_is_wasted(
    ask: Callable[[Client], Response], round_trips: int, proxied: Proxied
) -> None:
    shop, proxy = proxied
    client = shop.client()
    for _ in range(10):
        ask(client)
    proxy.reset()
    for _ in range(10):
        assert ask(client).is_success
    assert proxy.round_trips == 10 * round_trips
