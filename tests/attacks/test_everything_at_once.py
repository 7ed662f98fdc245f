"""All kinds of requests at once, on a small pool and on a single connection."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.service import PATIENCE
from tests.shop import (
    BOOKS,
    PATIENTLY,
    WRONG_BALANCES,
    OpenShop,
    assert_is_whole,
    assert_no_stream_is_left,
    shopping,
    somebody,
)

pytestmark = pytest.mark.slow


def test_everything_at_once_is_served(open_shop: OpenShop) -> None:
    with (
        open_shop(**PATIENTLY) as shop,
        ThreadPoolExecutor(100) as threads,
    ):
        users = [somebody(shop) for _ in range(3)]
        visit = partial(shopping, time.monotonic() + 5, users)
        answers = [each for some in threads.map(visit, range(100)) for each in some]
        statuses = Counter(each.status_code for each in answers)
        assert statuses.keys() == {200, 201, 202, 404, 409}, statuses
        assert max(each.elapsed.total_seconds() for each in answers) < PATIENCE
        assert shop.sql(BOOKS) == [(1_000_000,)]
        assert shop.sql(WRONG_BALANCES) == []
        assert_no_stream_is_left(shop)
        assert_is_whole(shop)


def test_a_single_connection_serves_everything_at_once(open_shop: OpenShop) -> None:
    single = {"DATABASE_POOL_SIZE": 1, "DATABASE_MAX_OVERFLOW": 0}
    with (
        open_shop(**single, **PATIENTLY) as shop,
        ThreadPoolExecutor(40) as threads,
    ):
        users = [somebody(shop) for _ in range(3)]
        visit = partial(shopping, time.monotonic() + 3, users)
        answers = [each for some in threads.map(visit, range(40)) for each in some]
        statuses = Counter(each.status_code for each in answers)
        assert statuses.keys() == {200, 201, 202, 404, 409}, statuses
        assert shop.sql(BOOKS) == [(1_000_000,)]
        assert shop.sql(WRONG_BALANCES) == []
        assert_no_stream_is_left(shop)
        assert_is_whole(shop)
        assert shop.connections() <= 3
