{% extends "async.jinja" %}
{% block code %}
"""What the tests do with a database, past the app."""

{% if cookiecutter.io == 'async' %}
import asyncio
import json
import os
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator
{% else %}
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
{% endif %}
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import Table, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateTable
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message

from app.config import Settings
from app.db.database import Database
from app.db.engine import make_engine

T = TypeVar("T")

POOLER = os.environ.get("TEST_DATABASE_POOLER", "none")


def make_settings(url: str, **overrides: Any) -> Settings:
    """Return settings for tests: neither the environment nor `.env` is read."""
    values = {"environment": "test", "database_url": url}
    if url.startswith("postgres"):
        values["database_pooler"] = POOLER
    return Settings.model_validate(values | overrides)


{% if cookiecutter.io == 'async' %}
def call(
    client: TestClient,
    function: Callable[..., Coroutine[Any, Any, T]],
    *args: Any,
) -> T:
    """Call a function where the app runs: its connections belong to its event loop."""
    assert client.portal is not None, "the client is entered first"
    result: T = client.portal.call(function, *args)
    return result


def run(function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """Call a function in an event loop of its own."""
    return asyncio.run(function(*args))


async def driver_of(connection: AsyncConnection) -> Any:
    """Return the driver's own connection."""
    return (await connection.get_raw_connection()).driver_connection


def tcp_options(driver: Any, *options: int) -> list[int]:
    """Return options of the driver's socket."""
    connection = driver._transport.get_extra_info("socket")
    return [connection.getsockopt(socket.IPPROTO_TCP, each) for each in options]


async def run_sync(connection: AsyncConnection, function: Callable[..., T]) -> T:
    """Call a function with the synchronous connection."""
    return await connection.run_sync(function)


async def copy_note(driver: Any, text: str) -> None:
    """Store a note by COPY, past SQLAlchemy."""
    columns = ["text"]
    await driver.copy_records_to_table("test_notes", records=[(text,)], columns=columns)
{% else %}
def call(_client: TestClient, function: Callable[..., T], *args: Any) -> T:
    """Call a function where the app runs, which is anywhere."""
    return function(*args)


def run(function: Callable[..., T], *args: Any) -> T:
    """Call a function."""
    return function(*args)


def driver_of(connection: Connection) -> Any:
    """Return the driver's own connection."""
    return connection.connection.driver_connection


def tcp_options(driver: Any, *options: int) -> list[int]:
    """Return options of the driver's socket."""
    with socket.socket(fileno=os.dup(driver.fileno())) as connection:
        return [connection.getsockopt(socket.IPPROTO_TCP, each) for each in options]


def run_sync(connection: Connection, function: Callable[..., T]) -> T:
    """Call a function with the synchronous connection."""
    return function(connection)


def copy_note(driver: Any, text: str) -> None:
    """Store a note by COPY, past SQLAlchemy."""
    with driver.cursor().copy("COPY test_notes (text) FROM STDIN") as copying:
        copying.write_row((text,))
{% endif %}


def at_once(function: Callable[[int], T], times: int) -> list[T]:
    """Call a function many times at the same time, with 0, 1, 2, …"""
    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(function, range(times)))


@contextmanager
def recorded_statements(database: Database, *first_words: str) -> Iterator[list[str]]:
    """Give the list of all statements that begin so and are sent meanwhile."""
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        # Behind a pooler, each transaction begins by setting its timeouts.
        if statement.startswith(first_words) and "set_config" not in statement:
            statements.append(statement)

    engines = [database.write_engine.sync_engine, database.read_engine.sync_engine]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", record)
    yield statements
    for engine in engines:
        event.remove(engine, "before_cursor_execute", record)


def recorded_selects(database: Database) -> AbstractContextManager[list[str]]:
    """Give the list of all SELECT statements for data that are sent meanwhile."""
    return recorded_statements(database, "SELECT")


async def execute(settings: Settings, *statements: str) -> None:
    """Run statements outside a transaction, on a connection of their own."""
    engine = make_engine(settings)
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


async def run_on(settings: Settings, function: Callable[..., T]) -> T:
    """Call a function with a connection, in a transaction of its own."""
    engine = make_engine(settings)
    try:
        async with engine.begin() as connection:
            return await run_sync(connection, function)
    finally:
        await engine.dispose()


async def create_table(settings: Settings, table: Table) -> None:
    """Create a table that no migration knows."""
    engine = make_engine(settings)
    async with engine.begin() as connection:
        await connection.execute(CreateTable(table))
    await engine.dispose()


def create_database(server_url: str) -> str:
    """Create an empty PostgreSQL database and return its URL."""
    name = f"test_{uuid4().hex}"
    run(execute, make_settings(server_url), f"CREATE DATABASE {name}")
    url = make_url(server_url).set(database=name)
    return url.render_as_string(hide_password=False)


def drop_database(server_url: str, url: str) -> None:
    """Drop a database that `create_database` made."""
    name = make_url(url).database
    statement = f"DROP DATABASE {name} WITH (FORCE)"
    run(execute, make_settings(server_url), statement)


async def empty_tables(database: Database, tables: Iterable[Table]) -> None:
    """Delete all rows; that takes no longer than a rollback would."""
    async with database.write_engine.begin() as connection:
        for table in tables:
            await connection.execute(table.delete())


async def count_leaks(database: Database) -> int:
    """Return how many connections are checked out, or idle in a transaction."""
    pools: list[Any] = [database.write_engine.pool, database.read_engine.pool]
    leaks: int = sum(pool.checkedout() for pool in pools)
    if database.write_engine.dialect.name == "postgresql":
        query = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state LIKE 'idle in transaction%' AND pid <> pg_backend_pid()"
        )
        async with database.readiness_engine.connect() as connection:
            leaks += await connection.scalar(query) or 0
    return leaks
{% endblock %}
{% block verbatim %}


async def post(app: ASGIApp, path: str, body: object, sent: list[Message]) -> None:
    """Serve a POST as a server does; what is sent is appended to `sent`."""
    content = json.dumps(body).encode()
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
{% endblock %}
