"""What any client of a service finds, without faults; behind a pooler as well."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.service import wait_until
from tests.shop import (
    ADA,
    PLENTY,
    Shop,
    create,
    export,
    order,
    register,
    token_of_somebody_new,
    transfer,
)

pytestmark = pytest.mark.slow


def test_what_was_created_is_found_at_once(shop: Shop) -> None:
    writer, other = shop.client(), shop.client()
    found = Counter[int]()
    for _ in range(60):
        path = f"/products/{create(writer).json()['id']}"
        found.update(client.get(path).status_code for client in (writer, other))
    assert found == {200: 120}


def test_what_others_have_ordered_is_not_found(shop: Shop) -> None:
    client = shop.client()
    other = shop.service.client(token_of_somebody_new(client))
    path = f"/orders/{order(client, PLENTY).json()['id']}"
    for _ in range(2):  # Nor is it when its user has just read it.
        assert client.get(path).status_code == 200
        assert other.get(path).status_code == 404
    assert other.get("/orders").json()["items"] == []


def test_what_takes_sessions_of_its_own_works(shop: Shop) -> None:
    client = shop.client()
    path = f"/orders/{order(client, PLENTY).json()['id']}"
    assert client.post(f"{path}/fulfilment").status_code == 202
    wait_until(lambda: client.get(path).json()["status"] == "fulfilled", patience=10)
    register(client, ADA)
    given = transfer(client, ADA)
    assert given.status_code == 201
    assert given.json() == {"amount": 100, "balance": 9_900}
    assert shop.sql("SELECT amount FROM transfers") == [(100,)]
    exported = [json.loads(line)["id"] for line in export(client).text.splitlines()]
    assert exported == [id for (id,) in shop.sql("SELECT id FROM products ORDER BY 1")]
    wait_until(lambda: shop.gauges()["checked_out"] == 1)
