{% extends "async.jinja" %}
{% block code %}
"""SQLite with real transactions, foreign keys and timeouts."""

import time
{% if cookiecutter.io == 'async' %}
from asyncio import CancelledError
from contextlib import suppress
{% endif %}
from typing import Any

{% if cookiecutter.io == 'async' %}
from anyio import CancelScope
{% endif %}
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

from app.config import Settings
from app.db.timeouts import timeout_parameters

# How many of SQLite's instructions run between two checks of the deadline.
_INSTRUCTIONS = 10_000


def prepare_sqlite(engine: Engine, settings: Settings, *, read_only: bool) -> None:
    """Make transactions and timeouts behave as on PostgreSQL.

    The driver's own transactions begin at the first write, too late to keep two
    writers apart: 148 of 200 concurrent updates were lost that way, without an error.
    So SQLAlchemy begins them, with BEGIN IMMEDIATE, which waits for other writers.
    """
    defaults = timeout_parameters(
        statement=settings.database_statement_timeout,
        lock=settings.database_lock_timeout,
    )

    @event.listens_for(engine, "connect")
    def connect(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        driver: Any = connection
        driver.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(_busy_timeout(defaults["lock_timeout"]))
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        if read_only:
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

        def is_too_slow() -> bool:
            deadline: float = entry.info.get("deadline", float("inf"))
            return time.monotonic() > deadline

{% if cookiecutter.io == 'async' %}
        driver.run_async(
            lambda sqlite: sqlite.set_progress_handler(is_too_slow, _INSTRUCTIONS)
        )
        # SQLite's own lower() knows ASCII only: a search would miss "Äpfel".
        driver.run_async(
            lambda sqlite: sqlite.create_function(
                "lower", 1, _lower, deterministic=True
            )
        )
{% else %}
        driver.set_progress_handler(is_too_slow, _INSTRUCTIONS)
        # SQLite's own lower() knows ASCII only: a search would miss "Äpfel".
        driver.create_function("lower", 1, _lower, deterministic=True)
{% endif %}

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("isolation_level") == "AUTOCOMMIT":
            return
        lock_timeout = options.get("lock_timeout")
        if lock_timeout:
            connection.exec_driver_sql(_busy_timeout(lock_timeout))
        try:
            connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
        finally:
            if lock_timeout:
                connection.exec_driver_sql(_busy_timeout(defaults["lock_timeout"]))

    @event.listens_for(engine, "reset")
    def reset(
        connection: DBAPIConnection,
        entry: ConnectionPoolEntry | None,
        state: PoolResetState,
    ) -> None:
        # Unlike PostgreSQL, SQLite keeps a transaction open whose COMMIT has failed,
        # and SQLAlchemy takes it for ended. What has left the pool will be closed.
        driver: Any = entry and entry.driver_connection
        if state.asyncio_safe and driver and driver.in_transaction:
            connection.rollback()

{% if cookiecutter.io == 'async' %}
    @event.listens_for(engine, "invalidate")
    def invalidate(
        connection: DBAPIConnection,
        entry: ConnectionPoolEntry,
        _error: BaseException | None,
    ) -> None:
        # A cancelled statement goes on in the driver's thread: its deadline ends it.
        entry.info["deadline"] = 0
        driver: Any = connection
        driver.run_async(_roll_back_and_close)

{% endif %}
    @event.listens_for(engine, "before_cursor_execute")
    def start_clock(connection: Connection, *execution: Any) -> None:
        context = execution[3]
        options = defaults | connection.get_execution_options()
        milliseconds = float(options["statement_timeout"])
        if context and context.execution_options.get("yield_per"):
            milliseconds = 0  # what it takes depends on the stream's reader
        deadline = time.monotonic() + (milliseconds / 1_000 or float("inf"))
        connection.info["deadline"] = deadline


{% if cookiecutter.io == 'async' %}
async def _roll_back_and_close(sqlite: Any) -> None:
    # Closing alone would leave the lock to a cursor that lives until Python collects
    # it. Cancelled again, this must not keep the connection from the pool.
    with CancelScope(shield=True), suppress(CancelledError):
        try:
            await sqlite.rollback()
        finally:
            await sqlite.close()


{% endif %}
def _busy_timeout(milliseconds: str) -> str:
    # SQLite would take 0 for not waiting at all.
    return f"PRAGMA busy_timeout = {int(milliseconds) or 86_400_000}"


def _lower(text: Any) -> Any:
    return text.lower() if isinstance(text, str) else text
{% endblock %}
