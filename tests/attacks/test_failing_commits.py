"""Commits fail: the client is told so, and nothing is saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest

from tests.service import wait_until
from tests.shop import (
    PATIENTLY,
    PLENTY,
    POOL_SIZE,
    WRONG_BALANCES,
    OpenShop,
    Shop,
    assert_is_whole,
    assert_tells_nothing,
    create,
    fulfil,
    locked,
    new_product,
    order,
    register,
    somebody,
    transfer,
    waiting_for_the_lock,
)

pytestmark = pytest.mark.slow

# Each transfer's first two commits fail.
BUSY_TWICE = """
CREATE OR REPLACE FUNCTION count_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('attempts') < 3 THEN
        RAISE EXCEPTION 'this was not to be' USING ERRCODE = '40001';
    END IF;
    RETURN NULL;
END
$$
"""
ATTEMPTS = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM attempts"
DEFERRED_UNIQUE = """
ALTER TABLE products
    ADD CONSTRAINT one_of_a_name UNIQUE (name) DEFERRABLE INITIALLY DEFERRED
"""

each_fate = pytest.mark.parametrize(
    ("sqlstate", "status"), [("P0001", 500), ("23505", 409), ("40001", 503)]
)


@contextmanager
def failing_commits(
    shop: Shop, sqlstate: str, relation: str = "products"
) -> Iterator[None]:
    """Let each COMMIT that changes those rows fail with that state."""
    shop.sql(f"INSERT INTO fate VALUES ('{relation}', '{sqlstate}')")
    try:
        yield
    finally:
        shop.sql("DELETE FROM fate")


def stored(shop: Shop) -> list[Any]:
    """Return all that products and orders are made of."""
    tables = ("products", "orders", "order_items")
    return [shop.sql(f"SELECT * FROM {table} ORDER BY id") for table in tables]


@each_fate
def test_a_commit_that_fails_is_no_success_and_saves_nothing(
    sqlstate: str, status: int, shop: Shop
) -> None:
    client = shop.client()
    product = create(client).json()["id"]
    path = f"/products/{product}"
    before = stored(shop)
    with failing_commits(shop, sqlstate):
        answers = [
            create(client),
            client.post("/products/bulk", json=[new_product(), new_product()]),
            client.patch(path, json={"price": 200}),
            client.delete(path),
            order(client, product),
        ]
        assert stored(shop) == before
    assert [answer.status_code for answer in answers] == [status] * 5
    assert [answer.json()["status"] for answer in answers] == [status] * 5
    assert [answer for answer in answers if "not to be" in answer.text] == []
    assert create(client).status_code == 201
    assert order(client, product).status_code == 201


def test_an_order_is_saved_with_what_it_takes_or_not_at_all(shop: Shop) -> None:
    client = shop.client()
    before = stored(shop)
    for relation in ("products", "orders"):
        with failing_commits(shop, "23505", relation):
            assert order(client, 1, PLENTY).status_code == 409
            assert stored(shop) == before


@each_fate
def test_nobody_is_registered_by_a_commit_that_fails(
    sqlstate: str, status: int, shop: Shop
) -> None:
    client, email = shop.service.client(), f"{uuid4()}@example.com"
    with failing_commits(shop, sqlstate, "users"):
        answer = register(client, email)
    assert answer.status_code == status
    assert_tells_nothing([answer])
    assert shop.sql(f"SELECT FROM users WHERE email = '{email}'") == []
    assert register(client, email).status_code == 201


@each_fate
def test_a_transfer_that_fails_in_its_commit_is_made_again_only_if_that_may_help(
    sqlstate: str, status: int, shop: Shop
) -> None:
    sender, recipient = somebody(shop), somebody(shop)
    count = "SELECT count(*) FROM transfers"
    before = shop.sql(count)
    ((attempts,),) = shop.sql(ATTEMPTS)
    with failing_commits(shop, sqlstate, "transfers"):
        answer = transfer(sender.client, recipient.email)
    ((tried,),) = shop.sql(ATTEMPTS)
    assert answer.status_code == status
    assert_tells_nothing([answer])
    assert answer.headers.get("Retry-After") == ("1" if status == 503 else None)
    assert (tried - attempts > 1) is (sqlstate == "40001"), tried - attempts
    assert shop.sql(count) == before
    assert shop.sql(WRONG_BALANCES) == []
    assert transfer(sender.client, recipient.email).status_code == 201


def test_a_transfer_that_fails_twice_in_its_commit_is_made_once(
    open_shop: OpenShop,
) -> None:
    with open_shop(**PATIENTLY) as shop:
        sender, recipient = somebody(shop), somebody(shop)
        shop.sql(BUSY_TWICE)
        answer = transfer(sender.client, recipient.email)
        assert answer.status_code == 201
        assert answer.json()["balance"] == 9_900
        assert shop.sql(ATTEMPTS) == [(3,)]
        assert shop.sql("SELECT amount FROM transfers") == [(100,)]
        assert shop.sql(WRONG_BALANCES) == []
        assert_is_whole(shop)


def test_one_of_many_has_what_only_the_commit_finds_to_be_taken(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop, ThreadPoolExecutor(20) as threads:
        shop.sql(DEFERRED_UNIQUE)
        client = shop.client()
        with locked(shop):
            asked = [threads.submit(create, client) for _ in range(20)]
            wait_until(lambda: waiting_for_the_lock(shop) == POOL_SIZE)
        answers = [each.result() for each in asked]
        assert Counter(each.status_code for each in answers) == {201: 1, 409: 19}
        refused = [each for each in answers if each.status_code == 409]
        assert_tells_nothing(refused)
        assert {each.json()["type"] for each in refused} == {"already-exists"}
        assert shop.count("products WHERE name = 'New'") == 1
        shop.sql("ALTER TABLE products DROP CONSTRAINT one_of_a_name")
        assert_is_whole(shop)


def test_what_fails_in_the_background_changes_nothing_and_is_logged(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop:
        client = shop.client()
        id = order(client, PLENTY).json()["id"]
        with failing_commits(shop, "P0001", "orders"):
            assert fulfil(client, id).status_code == 202
            wait_until(lambda: "background task " in shop.service.log)
        assert client.get(f"/orders/{id}").json()["status"] == "placed"
        assert_is_whole(shop)
