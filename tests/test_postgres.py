"""The server of our own is what the tests of rendered projects take it for."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests import postgres
from tests.postgres import Cluster, PostgresError, Replica, Server, programs

pytestmark = pytest.mark.slow


@pytest.fixture
def replica() -> Iterator[Replica]:
    with Cluster() as primary, primary.replica() as replica:
        yield replica


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


def test_a_replica_follows_its_primary(replica: Replica) -> None:
    primary = Server(replica.primary.url)
    original = primary.create_database()
    primary.execute("CREATE TABLE notes AS SELECT 'first' AS text", original)
    copy = primary.create_database(template=original)
    primary.execute("INSERT INTO notes VALUES ('second')", copy)
    replica.catch_up()
    read = Server(replica.counterpart(copy)).execute(
        "SELECT text, pg_is_in_recovery() FROM notes ORDER BY text"
    )
    assert read == [("first", True), ("second", True)]


def test_a_replica_refuses_writes(replica: Replica) -> None:
    with pytest.raises(psycopg.Error) as refusal:
        Server(replica.url).execute("CREATE TABLE notes ()")
    assert refusal.value.sqlstate == "25006"


def test_a_replica_whose_replay_is_paused_lags_behind(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, follower = Server(replica.primary.url), Server(replica.url)
    primary.execute("CREATE TABLE notes (text text)")
    replica.catch_up()
    follower.execute("SELECT pg_wal_replay_pause()")
    primary.execute("INSERT INTO notes VALUES ('late')")
    with monkeypatch.context() as patch:
        patch.setattr(postgres, "PATIENCE", 0)
        with pytest.raises(PostgresError, match="did not arrive"):
            replica.catch_up()
    assert follower.execute("SELECT text FROM notes") == []
    follower.execute("SELECT pg_wal_replay_resume()")
    replica.catch_up()
    assert follower.execute("SELECT text FROM notes") == [("late",)]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_replica_that_was_stopped_comes_back_and_catches_up(
    replica: Replica, how: signal.Signals
) -> None:
    primary, follower = Server(replica.primary.url), Server(replica.url)
    replica.stop(how)
    with pytest.raises(psycopg.OperationalError):
        follower.execute("SELECT 1")
    primary.execute("CREATE TABLE notes AS SELECT 'missed' AS text")
    # A primary that kept nothing for its replica would now remove what it wrote.
    for statement in ("SELECT pg_switch_wal()", "CHECKPOINT"):
        primary.execute(statement)
    replica.start()
    replica.catch_up()
    assert follower.execute("SELECT text FROM notes") == [("missed",)]


def test_a_replica_finds_its_primary_again(replica: Replica) -> None:
    replica.primary.stop()
    replica.primary.start()
    Server(replica.primary.url).execute("CREATE TABLE notes AS SELECT 'new' AS text")
    replica.catch_up()
    assert Server(replica.url).execute("SELECT text FROM notes") == [("new",)]
