"""A transfer that waits for a row and loses its transaction is made again, once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from httpx2 import Response

from tests.service import wait_until
from tests.shop import (
    CONNECTIONS,
    WRONG_BALANCES,
    OpenShop,
    Shop,
    Somebody,
    assert_is_whole,
    somebody,
    transfer,
    waiting_for_the_lock,
)

pytestmark = pytest.mark.slow


@contextmanager
def waiting_transfer(
    shop: Shop,
) -> Iterator[tuple[psycopg.Connection[Any], Somebody, Future[Response]]]:
    """Give the holder of the recipient's row, the sender, and what waits for the row.

    It has to be made in the end, once.
    """
    sender, recipient = somebody(shop), somebody(shop)
    with ThreadPoolExecutor() as threads, psycopg.connect(shop.url) as holder:
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
