"""Somebody keeps a lock for ever: who waits for it is told in time to come back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.service import wait_until
from tests.shop import (
    BOOKS,
    PATIENTLY,
    PLENTY,
    POOL_SIZE,
    OpenShop,
    assert_is_whole,
    assert_tells_nothing,
    order,
    read,
    waiting_for_the_lock,
)

pytestmark = pytest.mark.slow


def test_a_lock_that_nobody_gives_back_is_waited_for_in_bounds(
    open_shop: OpenShop,
) -> None:
    with (
        open_shop(DATABASE_LOCK_TIMEOUT=1, **PATIENTLY) as shop,
        ThreadPoolExecutor(20) as threads,
    ):
        client = shop.client()
        row = f"SELECT FROM products WHERE id = {PLENTY} FOR UPDATE"
        with psycopg.connect(shop.url) as holder:
            holder.execute(row.encode())
            storm = [threads.submit(order, client, PLENTY) for _ in range(20)]
            wait_until(lambda: waiting_for_the_lock(shop) == POOL_SIZE)
            assert read(client).status_code == 200
            answers = [each.result() for each in storm]
        assert {each.status_code for each in answers} == {503}
        assert {each.json()["type"] for each in answers} == {"database-busy"}
        assert {each.headers["Retry-After"] for each in answers} == {"1"}
        assert_tells_nothing(answers)
        assert min(each.elapsed.total_seconds() for each in answers) >= 1
        again = list(threads.map(lambda _: order(client, PLENTY), range(20)))
        assert {each.status_code for each in again} == {201}
        assert shop.sql(BOOKS) == [(1_000_000,)]
        assert_is_whole(shop)
