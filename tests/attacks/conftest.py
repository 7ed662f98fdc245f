"""What the attacks share: projects, and shops to serve them as."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import pgbouncer
from tests.pgbouncer import PgBouncer
from tests.postgres import Server
from tests.shop import POOL_SIZE, OpenShop, Shop, assert_is_whole, opened, serve, stock
from tests.template import COMBINATIONS, EXTREMES, Answers, Bakery, name_of

# A pooler with very few connections, and a service that may have more of its own.
POOLER_CONNECTIONS = 4
POOLED = {"DATABASE_POOLER": "transaction", "DATABASE_POOL_SIZE": 16}


class Way(NamedTuple):
    """A variant, and whether a transaction pooler stands before its database."""

    variant: Answers
    pooled: bool

    def __str__(self) -> str:
        """Return a readable name."""
        return name_of(self.variant) + "-pooled" * self.pooled


WAYS = [
    *(Way(variant, pooled=False) for variant in COMBINATIONS),
    *(Way(variant, pooled=True) for variant in EXTREMES),
]


@pytest.fixture(scope="session")
def stocked(bake: Bakery, server: Server) -> str:
    """The URL of a database to copy: migrated, with products and triggers."""
    return stock(server, bake)


@pytest.fixture(params=EXTREMES, ids=name_of)
def project(request: pytest.FixtureRequest, bake: Bakery) -> Path:
    """An asynchronous and a synchronous variant, unlike in all else too."""
    return bake(**request.param, example=True)


@pytest.fixture
def open_shop(project: Path, server: Server, stocked: str) -> OpenShop:
    """Opens a shop of each of them, on a small pool."""
    return partial(opened, project, server, stocked, DATABASE_POOL_SIZE=POOL_SIZE)


@pytest.fixture(scope="session")
def pooler(server: Server) -> Iterator[PgBouncer]:
    """A transaction pooler with very few connections."""
    if not pgbouncer.program():
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    with PgBouncer(server.url, POOLER_CONNECTIONS) as pooler:
        yield pooler


@pytest.fixture(scope="module", params=WAYS, ids=str)
def shop(
    request: pytest.FixtureRequest, bake: Bakery, server: Server, stocked: str
) -> Iterator[Shop]:
    """Each variant, with a single connection to write: who keeps it is found out.

    Two are behind a pooler as well.
    """
    variant, pooled = request.param
    project = bake(**variant, example=True)
    url = server.create_database(template=stocked)
    settings: dict[str, Any] = {"DATABASE_POOL_SIZE": 1, "DATABASE_RETRY_DEADLINE": 1}
    if pooled:
        pooler = request.getfixturevalue("pooler")
        settings |= {"way": pooler.way_to(url), **POOLED}
    with serve(project, server, url, **settings) as shop:
        yield shop
        assert_is_whole(shop)
