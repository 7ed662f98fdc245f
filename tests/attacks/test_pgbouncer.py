"""Services behind PgBouncer, each transaction on one of a few connections."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psycopg
import pytest

from tests.attacks.conftest import POOLED, POOLER_CONNECTIONS
from tests.evidence import count_passed, note
from tests.pgbouncer import PgBouncer
from tests.postgres import Server
from tests.service import run
from tests.shop import (
    BOOKS,
    CONNECTIONS,
    PATIENTLY,
    WRONG_BALANCES,
    OpenShop,
    assert_is_whole,
    assert_no_stream_is_left,
    create,
    locked,
    read,
    serve,
    shopping,
    somebody,
    transfer,
)
from tests.template import Answers, Bakery

pytestmark = pytest.mark.slow

# Twice as many as the service has connections.
CLIENTS = 32


@pytest.fixture
def open_pooled(
    project: Path, server: Server, stocked: str, pooler: PgBouncer
) -> OpenShop:
    """Opens a shop with more connections to the pooler than that has to the server."""
    url = server.create_database(template=stocked)
    return partial(serve, project, server, url, pooler.way_to(url), **POOLED)


@pytest.mark.costly
def test_a_projects_own_tests_pass_behind_a_transaction_pooler(
    variant: Answers, bake: Bakery, server: Server, pooler: PgBouncer, tmp_path: Path
) -> None:
    project = shutil.copytree(bake(**variant, example=True), tmp_path / "project")
    output = run(
        project,
        *(sys.executable, "-m", "pytest", "--verbose", "-rs", "--maxfail=10"),
        *("-k", "postgresql"),
        TEST_DATABASE_URL=pooler.way_to(server.url),
        TEST_DATABASE_POOLER="transaction",
    )
    note(pooled=count_passed(output))
    for test in ("test_orders.py", "session/test_commit.py"):
        assert re.search(rf"{test}::\S+\[postgresql\] PASSED", output), test


def test_everything_at_once_is_served_behind_a_transaction_pooler(
    open_pooled: OpenShop,
) -> None:
    with open_pooled(**PATIENTLY) as shop, ThreadPoolExecutor(CLIENTS) as threads:
        users = [somebody(shop) for _ in range(3)]
        visit = partial(shopping, time.monotonic() + 4, users)
        answers = [each for some in threads.map(visit, range(CLIENTS)) for each in some]
        statuses = Counter(each.status_code for each in answers)
        print(dict(statuses))
        assert statuses.keys() == {200, 201, 202, 404, 409}, statuses
        assert "prepared statement" not in shop.service.log
        assert shop.sql(BOOKS) == [(1_000_000,)]
        assert shop.sql(WRONG_BALANCES) == []
        assert_no_stream_is_left(shop)
        assert_is_whole(shop)
        assert shop.connections() <= POOLER_CONNECTIONS


def test_a_timeout_holds_behind_a_transaction_pooler_and_does_not_stick(
    open_pooled: OpenShop,
) -> None:
    timeouts = {"DATABASE_STATEMENT_TIMEOUT": 1, "DATABASE_LOCK_TIMEOUT": 0}
    names = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
    names += ["default_transaction_read_only", "transaction_isolation"]
    with open_pooled(**timeouts) as shop, ExitStack() as held:
        client, users = shop.client(), [somebody(shop) for _ in range(2)]
        with ThreadPoolExecutor(POOLER_CONNECTIONS) as threads, locked(shop):
            asks = [create, read, create, read]
            answers = list(threads.map(lambda ask: ask(client), asks))
        assert [each.status_code for each in answers] == [504] * POOLER_CONNECTIONS
        assert transfer(users[0].client, users[1].email).status_code == 201
        used = shop.sql(f"SELECT pid {CONNECTIONS}")
        assert len(used) == POOLER_CONNECTIONS
        found = []
        for _ in used:
            # Each keeps the connection that it got until all have one.
            plain = held.enter_context(psycopg.connect(shop.url))
            found += plain.execute("SELECT pg_backend_pid()").fetchall()
            for name in names:
                (value,) = plain.execute(f"SHOW {name}".encode()).fetchall()
                assert [value] == shop.sql(f"SHOW {name}"), name
        assert sorted(found) == sorted(used)
