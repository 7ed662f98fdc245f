{% extends "async.jinja" %}
{% block code %}
"""A URL may name several hosts, of which one is used."""

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import make_url, text

from app.config import Settings, load_settings
from app.db.database import Database
from app.db.engine import make_engine
from app.db.errors import DatabaseUnavailableError
from tests.support import make_settings

ROLE = "target_session_attrs"
TWO = "postgresql://user:a,b%40c@one:5432,two/name"


def test_hosts_and_ports_are_taken_apart() -> None:
    url = make_settings(f"{TWO}?{ROLE}=any&sslmode=require").url
    assert (url.query["host"], url.query["port"]) == ("one,two", "5432,5432")
    assert (url.username, url.password, url.database) == ("user", "a,b@c", "name")
    assert url.query["sslmode"] == "require"


def test_a_comma_in_a_password_makes_no_two_hosts() -> None:
    url = make_settings("postgresql://user:a,b@one/name").url
    assert (url.host, url.password) == ("one", "a,b")


def test_ipv6_addresses_are_taken() -> None:
    url = make_settings(f"postgresql://user@[::1]:5433,[::2]/name?{ROLE}=any").url
    assert (url.query["host"], url.query["port"]) == ("::1,::2", "5433,5432")


@pytest.mark.parametrize("name", ["URL", "REPLICA_URL", "MIGRATION_URL"])
@pytest.mark.parametrize(
    ("url", "hint"),
    [
        (TWO, "as in postgresql://a:5432,b:5432/name"),
        (f"postgresql://one,,two/name?{ROLE}=any", "as in postgresql://a:5432"),
        (f"postgresql:///name?host=one,two&port=1&{ROLE}=any", "as in postgresql://a"),
        (f"postgresql://one:x,two/name?{ROLE}=any", "is not a database URL"),
        (f"{TWO}?{ROLE}=writable", f"{ROLE} must be one of"),
        (f"postgresql://one/name?{ROLE}=writable", f"{ROLE} must be one of"),
    ],
)
def test_hosts_that_nobody_could_use_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, hint: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://one/name")
    monkeypatch.setenv(f"DATABASE_{name}", url)
    with pytest.raises(SystemExit) as stop:
        load_settings()
    message = str(stop.value)
    assert f"DATABASE_{name}: " in message
    assert hint in message
    assert "\n" not in message


@pytest.fixture
def silent() -> Iterator[str]:
    """Give the address of a server that accepts connections, and is silent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def settings_with(settings: Settings, first: str, role: str) -> Settings:
    """Put another host before the database's own."""
    if settings.is_sqlite:
        pytest.skip("SQLite has no hosts")
    url = make_url(settings.database_url.get_secret_value())
    alone = url.render_as_string(hide_password=False)
    address = f"{url.host}:{url.port}"
    hosts = alone.replace(f"@{address}/", f"@{first},{address}/")
    assert hosts != alone
    return make_settings(
        f"{hosts}?{ROLE}={role}", database_connect_timeout=4, database_pool_timeout=4
    )


async def read_and_write(settings: Settings) -> None:
    async with Database(settings) as database:
        for kind in (database.write, database.read, database.snapshot):
            async with kind() as session:
                assert await session.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize("role", ["read-write", "primary", "any", "prefer-standby"])
async def test_the_next_host_is_used_when_one_is_down(
    notes_settings: Settings,
    role: str,
) -> None:
    await read_and_write(settings_with(notes_settings, "127.0.0.1:1", role))


async def test_the_next_host_is_used_when_one_is_silent(
    notes_settings: Settings,
    silent: str,
) -> None:
    settings = settings_with(notes_settings, silent, "read-write")
    engine = make_engine(settings)
    start = time.monotonic()
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    assert time.monotonic() - start < 4
    await engine.dispose()


async def test_a_standby_is_looked_for_on_all_hosts_before_another_will_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"postgresql://user@one:1,two:2/name?{ROLE}=prefer-standby"
    engine = make_engine(make_settings(url), read_only=True)
    tried: list[tuple[str, str, int]] = []

    def refuse(*_: object, **options: Any) -> None:
        tried.append((options[ROLE], options["host"], options["port"]))
        raise ConnectionRefusedError

    monkeypatch.setattr(engine.dialect, "connect", refuse)
    with pytest.raises(DatabaseUnavailableError):
        await engine.connect()
    assert tried == [
        ("standby", "one", 1),
        ("standby", "two", 2),
        ("any", "two", 2),
        ("any", "one", 1),
    ]


@pytest.mark.parametrize("role", ["standby", "read-only"])
async def test_no_host_of_the_role_is_no_database(
    notes_settings: Settings,
    role: str,
) -> None:
    engine = make_engine(settings_with(notes_settings, "127.0.0.1:1", role))
    with pytest.raises(DatabaseUnavailableError):
        await engine.connect()
    await engine.dispose()
{% endblock %}
