"""Two processes write to one SQLite file."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from httpx2 import Response

from tests.service import MIGRATE, PATIENCE, Service, run
from tests.shop import (
    PATIENTLY,
    WORKERS,
    WRONG_BALANCES,
    Shop,
    Somebody,
    assert_tells_nothing,
    create,
    order,
    somebody,
    transfer,
)

pytestmark = pytest.mark.slow


@contextmanager
def on_a_file(project: Path, folder: Path, **settings: Any) -> Iterator[Shop]:
    """Serve a project, by two workers, that has an SQLite database."""
    file = folder / "shop.db"
    url = f"sqlite:///{file}"
    run(project, *MIGRATE, DATABASE_URL=url)
    settings = {"ENVIRONMENT": "test", **WORKERS, **settings}

    def sql(statement: str) -> list[Any]:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            return connection.execute(statement).fetchall()

    with Service(project, DATABASE_URL=url, **settings) as service:
        yield Shop(service, url, sql)


def buy_and_give(users: list[Somebody], scarce: int, number: int) -> list[Response]:
    """Order what there is too little of, and give money, 25 times each."""
    random = Random(number)
    client = users[number % len(users)].client
    others = [each.email for each in users if each.client is not client]
    answers = []
    for _ in range(25):
        answers.append(order(client, scarce))
        answers.append(
            transfer(client, random.choice(others), random.randint(1, 5_000))
        )
    return answers


def test_writers_of_one_file_lose_nothing_and_are_not_refused(
    project: Path, tmp_path: Path
) -> None:
    timeouts = {"DATABASE_LOCK_TIMEOUT": 30, "DATABASE_STATEMENT_TIMEOUT": PATIENCE}
    with (
        on_a_file(project, tmp_path, **timeouts, **PATIENTLY) as shop,
        ThreadPoolExecutor(8) as threads,
    ):
        users = [somebody(shop) for _ in range(4)]
        scarce = create(shop.client(), stock=100).json()["id"]
        work = partial(buy_and_give, users, scarce)
        answers = [each for some in threads.map(work, range(8)) for each in some]
        orders, transfers = (
            Counter(each.status_code for each in answers if each.url.path == path)
            for path in ("/orders", "/transfers")
        )
        slowest = max(each.elapsed.total_seconds() for each in answers)
        print(f"{orders=} {transfers=}, the slowest took {slowest:.2f} s")
        assert orders == {201: 100, 409: 100}
        assert transfers.keys() <= {201, 409}
        assert "database is locked" not in shop.service.log
        assert shop.sql(f"SELECT stock FROM products WHERE id = {scarce}") == [(0,)]
        assert shop.sql("SELECT sum(quantity) FROM order_items") == [(100,)]
        assert shop.count("transfers") == transfers[201]
        assert shop.sql("SELECT sum(balance) FROM users WHERE id <= 4") == [(40_000,)]
        assert shop.sql(WRONG_BALANCES) == []


def test_who_waits_too_long_for_a_file_is_told_to_try_again(
    project: Path, tmp_path: Path
) -> None:
    timeouts = {"DATABASE_LOCK_TIMEOUT": 1, "DATABASE_RETRY_DEADLINE": 1}
    with (
        on_a_file(project, tmp_path, **timeouts) as shop,
        ThreadPoolExecutor(8) as threads,
    ):
        client = shop.client()
        id = create(client).json()["id"]
        giver, taker = somebody(shop), somebody(shop)
        file = tmp_path / "shop.db"
        with closing(sqlite3.connect(file, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            asked = [threads.submit(order, client, id) for _ in range(7)]
            asked.append(threads.submit(transfer, giver.client, taker.email))
            assert client.get(f"/products/{id}").status_code == 200
            answers = [each.result() for each in asked]
        assert {each.status_code for each in answers} == {503}
        assert {each.json()["type"] for each in answers} == {"database-busy"}
        assert {each.headers["Retry-After"] for each in answers} == {"1"}
        assert_tells_nothing(answers)
        assert min(each.elapsed.total_seconds() for each in answers) >= 1
        assert order(client, id).status_code == 201
        assert transfer(giver.client, taker.email).status_code == 201
