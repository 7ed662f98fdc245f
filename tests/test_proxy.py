"""The proxy that counts round trips counts them right."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.postgres import Server
from tests.proxy import Proxy

pytestmark = pytest.mark.slow


@pytest.fixture
def proxy(database: str, server: Server) -> Iterator[Proxy]:
    """A proxy in front of a database with one table."""
    server.execute("CREATE TABLE notes (text text)", database)
    with Proxy(database) as proxy:
        yield proxy


def test_a_transaction_with_one_insert_is_three_round_trips(
    proxy: Proxy, database: str, server: Server
) -> None:
    with psycopg.connect(proxy.url) as connection:
        proxy.reset()
        connection.execute("INSERT INTO notes VALUES ('kept')")
        connection.commit()
        assert proxy.round_trips == 3
    assert server.execute("SELECT text FROM notes", database) == [("kept",)]


def test_a_large_answer_is_one_round_trip(proxy: Proxy) -> None:
    with psycopg.connect(proxy.url, autocommit=True) as connection:
        proxy.reset()
        rows = connection.execute(
            "SELECT repeat('x', 1000) FROM generate_series(1, 9999)"
        )
        assert len(rows.fetchall()) == 9999
        assert proxy.round_trips == 1


def test_round_trips_of_all_connections_are_counted(proxy: Proxy) -> None:
    with (
        psycopg.connect(proxy.url, autocommit=True) as one,
        psycopg.connect(proxy.url, autocommit=True) as other,
    ):
        proxy.reset()
        for connection in (one, other, one):
            connection.execute("SELECT 1")
        assert proxy.round_trips == 3


def test_a_proxy_that_ends_cuts_its_connections(database: str) -> None:
    with Proxy(database) as proxy:
        connection = psycopg.connect(proxy.url, autocommit=True)
    with connection, pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")


def test_a_server_that_is_away_is_away_behind_the_proxy() -> None:
    with (
        Proxy("postgresql://nobody@127.0.0.1:1/nothing") as proxy,
        pytest.raises(psycopg.OperationalError),
    ):
        psycopg.connect(proxy.url)
