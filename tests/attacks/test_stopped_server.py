"""The database server goes, and comes back: nothing that it confirmed is lost."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks import in_all_variants
from tests.attacks.writers import (
    WRITERS,
    assert_is_honest,
    begun_after,
    recovered_after,
    writing,
)
from tests.evidence import note
from tests.postgres import Cluster, Server
from tests.service import wait_until
from tests.shop import (
    PLENTY,
    POOL_SIZE,
    assert_is_whole,
    assert_tells_nothing,
    export,
    opened,
    order,
    read,
    stock,
)
from tests.template import Bakery

pytestmark = pytest.mark.slow


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
    settings = {"DATABASE_POOL_SIZE": POOL_SIZE}
    with opened(project, server, stocked_fragile, **settings) as shop:
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
