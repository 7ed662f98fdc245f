"""More requests than connections: all are served, or told in time to come back."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from itertools import islice

import pytest

from tests.service import PATIENCE, wait_until
from tests.shop import (
    ADA,
    POOL_SIZE,
    OpenShop,
    assert_is_whole,
    create,
    join,
    locked,
    read,
    read_or_create,
    register,
    sign_in,
    waiting_for_the_lock,
)

pytestmark = pytest.mark.slow


def test_a_burst_on_a_small_pool_is_served(open_shop: OpenShop) -> None:
    with (
        open_shop(DATABASE_POOL_TIMEOUT=PATIENCE) as shop,
        ThreadPoolExecutor(200) as threads,
    ):
        ask = partial(read_or_create, shop.client())
        with locked(shop):
            burst = [threads.submit(ask, number) for number in range(200)]
            wait_until(lambda: waiting_for_the_lock(shop) == 2 * POOL_SIZE)
        answers = Counter(asked.result().status_code for asked in burst)
        assert answers == {200: 100, 201: 100}
        assert_is_whole(shop)


def test_a_burst_on_a_blocked_pool_is_refused_in_time(open_shop: OpenShop) -> None:
    timeout = 5
    timeouts = {
        "DATABASE_POOL_TIMEOUT": timeout,
        "DATABASE_LOCK_TIMEOUT": 60,
        "DATABASE_STATEMENT_TIMEOUT": 90,
    }
    with open_shop(**timeouts) as shop, ThreadPoolExecutor(200) as threads:
        ask = partial(read_or_create, shop.client())
        with locked(shop):
            burst = [threads.submit(ask, number) for number in range(200)]
            ended = as_completed(burst, timeout=PATIENCE)
            refused = [each.result() for each in islice(ended, 200 - 2 * POOL_SIZE)]
        served = [each.result() for each in ended]
        assert {answer.status_code for answer in refused} == {503}
        assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
        slowest = max(answer.elapsed.total_seconds() for answer in refused)
        assert timeout <= slowest < timeout + 5
        assert Counter(answer.status_code for answer in served) == {200: 5, 201: 5}
        assert_is_whole(shop)


def test_nobody_waits_until_passwords_are_hashed(open_shop: OpenShop) -> None:
    with open_shop() as shop, ThreadPoolExecutor(20) as threads:
        client = shop.client()
        register(client, ADA)
        enter = partial(sign_in, client, ADA)
        for hash_for, ask in [(enter, read), (partial(join, client), create)]:
            entering = [threads.submit(hash_for) for _ in range(20)]
            next(as_completed(entering))
            assert ask(client).is_success
            # Those that hash had the places, if hashing needed one.
            assert sum(not each.done() for each in entering) > POOL_SIZE
            burst = [read_or_create(client, number) for number in range(20)]
            answers = [*burst, *(each.result() for each in entering)]
            assert [answer for answer in answers if not answer.is_success] == []
        assert_is_whole(shop)


def test_a_full_pool_delays_only_those_who_need_it(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop, ThreadPoolExecutor(POOL_SIZE + 1) as threads:
        client = shop.client()
        register(client, ADA)
        enter, hello = partial(sign_in, client, ADA), partial(join, client)
        for fill, served, delayed in [(create, enter, hello), (read, hello, enter)]:
            with locked(shop):
                asked = [threads.submit(fill, client) for _ in range(POOL_SIZE)]
                wait_until(lambda: waiting_for_the_lock(shop) == POOL_SIZE)
                asked.append(threads.submit(delayed))
                assert served().is_success
                assert create(shop.service.client()).status_code == 401
                assert not asked[-1].done()
            assert [each for each in asked if not each.result().is_success] == []
        assert_is_whole(shop)
