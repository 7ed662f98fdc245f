"""Many order the same at once: nothing is sold twice, and nobody blocks another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from httpx2 import Response

from tests.service import wait_until
from tests.shop import (
    POOL_SIZE,
    OpenShop,
    Shop,
    assert_is_whole,
    create,
    locked,
    order,
    waiting_for_the_lock,
)

pytestmark = pytest.mark.slow


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
