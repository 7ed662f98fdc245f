"""Clients that write while something breaks, and what must have become of it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from httpx2 import Response

from tests.evidence import note
from tests.shop import UNKNOWN, Shop, assert_tells_nothing, new_product

WRITERS = 32


@dataclass(frozen=True)
class Write:
    """An attempt to create a product, when it was made, and what came of it."""

    sku: str
    begin: float
    end: float
    answer: Response


@contextmanager
def writing(shop: Shop) -> Iterator[list[Write]]:
    """Give what clients write, one after the other each, as long as it lasts."""
    client = shop.client()
    writes: list[Write] = []
    enough = threading.Event()

    def write() -> None:
        while not enough.is_set():
            product, begin = new_product(), time.monotonic()
            answer = client.post("/products", json=product)
            writes.append(Write(product["sku"], begin, time.monotonic(), answer))

    with ThreadPoolExecutor(WRITERS) as threads:
        asked = [threads.submit(write) for _ in range(WRITERS)]
        try:
            yield writes
        finally:
            enough.set()
    for each in asked:
        each.result()


def begun_after(moment: float, writes: list[Write]) -> list[Write]:
    """Return those writes that were begun later."""
    return [each for each in writes if each.begin > moment]


def recovered_after(moment: float, writes: list[Write]) -> float:
    """Return how many seconds later the last one was refused, or 0."""
    refused = [each.end for each in writes if each.answer.status_code != 201]
    return max(0, *(end - moment for end in refused))


def assert_is_honest(shop: Shop, writes: list[Write]) -> str:
    """Check that all is stored that was acknowledged, and nothing that was refused.

    Where nobody can know, that is what the client was told. Returns the figures.
    """
    statuses = Counter(each.answer.status_code for each in writes)
    assert statuses.keys() == {201, 503}, statuses
    refused = [each.answer for each in writes if each.answer.status_code == 503]
    assert_tells_nothing(refused)
    for answer in refused:
        assert ("Retry-After" in answer.headers) is (answer.json()["type"] != UNKNOWN)
    reasons = Counter(answer.json()["type"] for answer in refused)
    unknown = {w.sku for w in writes if w.answer.json().get("type") == UNKNOWN}
    acknowledged = {w.sku for w in writes if w.answer.status_code == 201}
    rows = shop.sql("SELECT sku FROM products WHERE name = 'New'")
    stored = {sku for (sku,) in rows}
    lost = acknowledged - stored
    note(acknowledged=len(acknowledged), lost=len(lost))
    assert lost == set()
    assert stored - acknowledged - unknown == set(), "refused and stored"
    return (
        f"{len(writes)} writes, {len(acknowledged)} acknowledged, 0 lost, "
        f"{len(unknown & stored)} of {len(unknown)} unknown stored, {dict(reasons)}"
    )
