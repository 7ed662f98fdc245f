"""What happens to a connection when it is made, checked out and returned."""

import time
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from app.config import Settings
from app.context import current_route
from app.db.admission import connect_timeout
from app.db.driver import is_closed, state_of, timeout_argument
from app.db.errors import DatabaseUnavailableError
from app.logs import logger

# Only a connection that was idle for so many seconds is pinged at checkout: pinging
# each time would double the cost of a read.
PING_AFTER = 30


def connect_in_time(
    engine: Engine, settings: Settings, servers: list[dict[str, Any]]
) -> None:
    """Connect within the timeout and within what waiting for a slot has left.

    `servers` are the driver's arguments for each server to try, in turn; they share
    the time.

    Drivers report a failed connect in a dozen ways, raw ones among them; here it is
    always `DatabaseUnavailableError`, with the driver's own error as its cause.
    """

    @event.listens_for(engine, "do_connect")
    def do_connect(
        dialect: Dialect,
        _entry: ConnectionPoolEntry,
        args: Any,
        kwargs: Any,
    ) -> DBAPIConnection:
        limits = [
            settings.database_connect_timeout or 86_400,
            settings.database_pool_timeout or 86_400,
        ]
        if (left := connect_timeout.get()) is not None:
            limits.append(left)
        limit = min(limits) / len(servers)
        is_postgresql = dialect.name == "postgresql"
        timeout = timeout_argument(limit) if is_postgresql else {}
        failure: Exception | None = None
        for server in servers:
            try:
                connection = dialect.connect(*args, **kwargs | server | timeout)
            except Exception as error:
                failure = error
            else:
                if failure:
                    logger.info("fell back to %s: %r", server, failure)
                return connection
        raise DatabaseUnavailableError("cannot connect") from failure


def watch_connections(engine: Engine, settings: Settings) -> None:
    """Look at each connection when it leaves the pool and when it returns.

    One that died in the pool is replaced before anybody uses it. One that returns in
    another state than it was made in is replaced as well; this sees what needs no round
    trip, and docs/sessions/connection-state.md has the rest. Who held one for longer
    than DATABASE_HELD_WARNING is logged.
    """
    is_postgresql = engine.dialect.name == "postgresql"
    look = state_of if is_postgresql else _state_of_sqlite
    longest = settings.database_held_warning or float("inf")

    @event.listens_for(engine, "connect")
    def connect(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        if is_postgresql:
            # SQLAlchemy does so after AUTOCOMMIT, which is no change then.
            engine.dialect.reset_isolation_level(connection)
        entry.info["state"] = look(connection, entry)
        entry.info["since"], entry.info["was used"] = time.monotonic(), False

    @event.listens_for(engine, "checkout")
    def checkout(
        connection: DBAPIConnection,
        entry: ConnectionPoolEntry,
        _proxy: object,
    ) -> None:
        now = time.monotonic()
        idle = now - entry.info["since"]
        if is_postgresql and (idle > PING_AFTER or is_closed(connection)):
            try:
                engine.dialect.do_ping(connection)
            except (engine.dialect.loaded_dbapi.Error, ConnectionError) as error:
                if not entry.info["was used"]:
                    raise DatabaseUnavailableError("lost a new connection") from error
                raise DisconnectionError("died while it was idle") from error
        entry.info["since"], entry.info["was used"] = now, True

    @event.listens_for(engine, "checkin")
    def checkin(
        connection: DBAPIConnection | None,
        entry: ConnectionPoolEntry,
    ) -> None:
        now = time.monotonic()
        held = now - entry.info.get("since", now)
        entry.info["since"] = now
        if held > longest:
            logger.warning("connection held for %.1f s by %s", held, current_route())
        if connection is None or (is_postgresql and is_closed(connection)):
            return
        if look(connection, entry) != entry.info["state"]:
            logger.warning("connection changed by %s; replacing it", current_route())
            entry.invalidate(soft=True)


def _state_of_sqlite(_connection: Any, entry: ConnectionPoolEntry) -> tuple[Any, ...]:
    driver: Any = entry.driver_connection
    # SQLAlchemy leaves "" after AUTOCOMMIT; transactions begin by BEGIN in any case.
    return driver.isolation_level or "", getattr(driver, "autocommit", None)
