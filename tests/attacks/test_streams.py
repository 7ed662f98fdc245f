"""Streams whose readers stall or leave, or whose connections break."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest

from tests.service import wait_until
from tests.shop import (
    CONNECTIONS,
    MANY_PRODUCTS,
    POOL_SIZE,
    ROWS,
    OpenShop,
    assert_is_whole,
    assert_no_stream_is_left,
    export,
    read_or_create,
    received,
    stalled_stream,
)

pytestmark = pytest.mark.slow

FINAL_CHUNK = b"0\r\n\r\n"


def test_a_stream_is_complete_and_ends_when_its_reader_goes(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop:
        shop.sql(MANY_PRODUCTS)
        everything = export(shop.client())
        assert everything.headers["Transfer-Encoding"] == "chunked"
        ids = [json.loads(line)["id"] for line in everything.text.splitlines()]
        assert len(ids) == len(set(ids)) == ROWS + 2
        for _ in range(3):
            with stalled_stream(shop):
                assert shop.gauges()["checked_out"] == 2
            assert_no_stream_is_left(shop)
        assert_is_whole(shop)


def test_a_stream_that_takes_too_long_is_visibly_cut(open_shop: OpenShop) -> None:
    with open_shop(DATABASE_STREAM_TIMEOUT=1) as shop:
        shop.sql(MANY_PRODUCTS)
        with stalled_stream(shop) as connection:
            assert shop.gauges()["checked_out"] == 2
            assert_no_stream_is_left(shop)
            body = received(connection)
        assert body.count(b"\n{") < ROWS - 10
        assert not body.endswith(FINAL_CHUNK)
        assert_is_whole(shop)


def test_a_stream_that_loses_its_connection_is_visibly_cut(open_shop: OpenShop) -> None:
    with open_shop() as shop:
        shop.sql(MANY_PRODUCTS)
        with stalled_stream(shop) as connection:
            ((killed,),) = shop.sql(f"""
                SELECT pg_terminate_backend(pid) {CONNECTIONS}
                AND backend_xmin IS NOT NULL
            """)
            assert killed
            body = received(connection)
        assert body.count(b"\n{") < ROWS - 10
        assert not body.endswith(FINAL_CHUNK)
        assert_no_stream_is_left(shop)
        assert_is_whole(shop)


def test_stalled_streams_leave_places_to_others(open_shop: OpenShop) -> None:
    timeout = 5
    with (
        open_shop(DATABASE_POOL_TIMEOUT=timeout) as shop,
        ExitStack() as streams,
        ThreadPoolExecutor(20) as threads,
    ):
        client = shop.client()
        shop.sql(MANY_PRODUCTS)
        for _ in range(POOL_SIZE // 2):
            streams.enter_context(stalled_stream(shop))
        third = threads.submit(export, client)
        wait_until(lambda: shop.gauges()["waiting"] == 1)
        others = list(threads.map(partial(read_or_create, client), range(40)))
        assert Counter(each.status_code for each in others) == {200: 20, 201: 20}
        assert not third.done()
        assert third.result().status_code == 503
        assert third.result().headers["Retry-After"] == "1"
        assert timeout <= third.result().elapsed.total_seconds() < timeout + 2
        assert shop.gauges()["checked_out"] == POOL_SIZE // 2 + 1
        streams.close()
        assert_no_stream_is_left(shop)
        assert export(client).status_code == 200
        assert_is_whole(shop)
