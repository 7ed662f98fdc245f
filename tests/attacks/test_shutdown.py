"""The service is told to end while requests are under way."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from httpx2 import Response

from tests.service import wait_until
from tests.shop import (
    ABANDONED,
    PATIENTLY,
    POOL_SIZE,
    WORKERS,
    OpenShop,
    Shop,
    create,
    locked,
    new_product,
    received,
    sent,
    waiting_for_the_lock,
)

pytestmark = pytest.mark.slow

THREADS = 60
# How long the app waits, when it ends, for connections to come back, in seconds.
DRAIN = 5


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
        assert shop.count("products WHERE name = 'New'") == 0
