"""The server of our own is what the tests of rendered projects take it for."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests import postgres
from tests.postgres import Cluster, PostgresError, Server, programs

pytestmark = pytest.mark.slow


def test_each_database_is_another(server: Server) -> None:
    first, second = server.create_database(), server.create_database()
    server.execute("CREATE TABLE notes ()", first)
    with pytest.raises(psycopg.errors.UndefinedTable):
        server.execute("SELECT FROM notes", second)


def test_a_database_can_be_the_copy_of_another(server: Server) -> None:
    original = server.create_database()
    server.execute("CREATE TABLE notes AS SELECT 'kept' AS text", original)
    copy = server.create_database(template=original)
    assert server.execute("SELECT text FROM notes", copy) == [("kept",)]


def test_lower_knows_more_letters_than_ascii(server: Server) -> None:
    assert server.execute("SELECT lower('ÄÉΣЖ')") == [("äéσж",)]


def test_databases_on_a_server_that_stays_are_dropped(server: Server) -> None:
    guest = Server(server.url)
    database = guest.create_database()
    with psycopg.connect(database):
        guest.drop_databases()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(database)


def test_a_cluster_keeps_its_address_and_data_when_it_restarts() -> None:
    with Cluster() as cluster:
        server = Server(cluster.url)
        server.execute("CREATE TABLE notes AS SELECT 'kept' AS text")
        cluster.stop()
        with pytest.raises(psycopg.OperationalError):
            server.execute("SELECT 1")
        cluster.start()
        assert server.execute("SELECT text FROM notes") == [("kept",)]
    assert not cluster.home.exists()


def test_a_named_folder_without_programs_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PG_BIN", str(tmp_path))
    with pytest.raises(PostgresError, match=str(tmp_path)):
        programs()


def test_a_server_that_does_not_start_says_why() -> None:
    cluster = Cluster(settings=[*postgres.SETTINGS, "max_connections=none"])
    with pytest.raises(PostgresError, match="max_connections"), cluster:
        pass
    assert not cluster.home.exists()
