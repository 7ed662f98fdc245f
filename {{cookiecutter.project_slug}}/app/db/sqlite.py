"""SQLite with real transactions, foreign keys and timeouts."""

import time
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

from app.config import Settings
from app.db.driver import prepare_sqlite_connections
from app.db.timeouts import timeout_parameters


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
    prepare_sqlite_connections(engine)

    @event.listens_for(engine, "connect")
    def connect(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
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

    @event.listens_for(engine, "before_cursor_execute")
    def start_clock(connection: Connection, *execution: Any) -> None:
        context = execution[3]
        options = defaults | connection.get_execution_options()
        milliseconds = float(options["statement_timeout"])
        if context and context.execution_options.get("yield_per"):
            milliseconds = 0  # what it takes depends on the stream's reader
        deadline = time.monotonic() + (milliseconds / 1_000 or float("inf"))
        connection.info["deadline"] = deadline


def _busy_timeout(milliseconds: str) -> str:
    # SQLite would take 0 for not waiting at all.
    return f"PRAGMA busy_timeout = {int(milliseconds) or 86_400_000}"
