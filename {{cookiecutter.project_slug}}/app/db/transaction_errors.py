"""Classify errors: has the transaction failed, ended, or an unknown outcome?"""

import re
import sqlite3
from typing import Any
from weakref import WeakKeyDictionary

{% if cookiecutter.io == 'async' %}
import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import DBAPIError, InvalidRequestError, PendingRollbackError
{% else %}
import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import InvalidRequestError, PendingRollbackError
{% endif %}

from app.db.errors import CommitOutcomeUnknownError

FAILED = "cannot commit: a statement failed; roll back first"
ENDED = "cannot commit: the transaction has ended; end it by the session's methods only"
# A statement that begins or ends a transaction; a savepoint is none.
_CONTROL = re.compile(
    r"\s*(BEGIN|START|COMMIT|END|ABORT|ROLLBACK(?!.*\bTO\b)|PREPARE\s+TRANSACTION)\b",
    re.IGNORECASE,
)


def classify_transaction_errors(engine: Engine) -> None:
    """Make errors say what became of the transaction.

    COMMIT raises `PendingRollbackError` when it would save nothing: after a failed
    statement, where PostgreSQL answers it with ROLLBACK and no driver raises, and when
    the transaction has ended already. SQLite would save what did not fail, and behaves
    the same. Rolling back to the savepoint in which a statement failed clears it.

    A COMMIT that loses its connection raises `CommitOutcomeUnknownError`.

    A connection whose ROLLBACK fails is not used again.
    """
    # The number of the last savepoint: SQLAlchemy calls them sa_savepoint_1 and so on.
    last = WeakKeyDictionary[Connection, int]()
    # The first error that was not rolled back, and the last savepoint before it.
    failed = WeakKeyDictionary[Connection, tuple[Exception | None, int]]()
    ending = WeakKeyDictionary[Connection, str]()

    @event.listens_for(engine, "handle_error")
    def handle_error(context: ExceptionContext) -> None:
        connection, error = context.connection, context.original_exception
        if connection is None or connection.invalidated:
            return
        if _is_lost(context) or ending.get(connection) == "ROLLBACK":
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = False
        if not context.is_disconnect:
            failure = (context.sqlalchemy_exception, last.get(connection, 0))
            failed.setdefault(connection, failure)
        elif not isinstance(error, Exception):
            return  # It is being cancelled.
        elif ending.get(connection) == "COMMIT":
            raise CommitOutcomeUnknownError("connection lost in COMMIT")
{% if cookiecutter.io == 'async' %}
        elif context.sqlalchemy_exception is None:
            raise DBAPIError(
                context.statement, None, error, connection_invalidated=True
            )
{% endif %}

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        failed.pop(connection, None)
        ending.pop(connection, None)
        connection.info["has run"] = False

    @event.listens_for(engine, "before_cursor_execute")
    def refuse_control(connection: Connection, *execution: Any) -> None:
        statement: str = execution[1]
        connection.info["has run"] = True
        # SQLite's own BEGIN comes before the transaction.
        if _CONTROL.match(statement) and _is_in_transaction(connection):
            raise InvalidRequestError(
                f"{statement.split()[0].upper()} is not allowed as a statement; "
                "call the session's commit(), rollback() or begin_nested()"
            )

    @event.listens_for(engine, "rollback")
    def rollback(connection: Connection) -> None:
        failed.pop(connection, None)
        ending[connection] = "ROLLBACK"

    @event.listens_for(engine, "savepoint")
    def savepoint(connection: Connection, _name: None) -> None:
        last[connection] = last.get(connection, 0) + 1

    @event.listens_for(engine, "rollback_savepoint")
    def rollback_savepoint(connection: Connection, name: str, _context: None) -> None:
        number = int(name.rpartition("_")[2])
        if connection in failed and number <= failed[connection][1]:
            del failed[connection]

    @event.listens_for(engine, "commit")
    def commit(connection: Connection) -> None:
        reason = FAILED if connection in failed else None
        if _is_in_transaction(connection):
            reason = reason or _reason_not_to_commit(connection)
        if reason:
            # Raising keeps SQLAlchemy from doing so, and the connection is not to go
            # back to the pool like that.
            connection.dialect.do_rollback(connection.connection)
            cause, _ = failed.pop(connection, (None, 0))
            raise PendingRollbackError(reason) from cause
        ending[connection] = "COMMIT"


def _is_in_transaction(connection: Connection) -> bool:
    """Whether SQLAlchemy believes so; AUTOCOMMIT has none."""
    options = connection.get_execution_options()
    is_autocommit = options.get("isolation_level") == "AUTOCOMMIT"
    return connection.in_transaction() and not is_autocommit


def _reason_not_to_commit(connection: Connection) -> str | None:
    """Return what the driver knows of the transaction, and SQLAlchemy does not."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        return None if driver.in_transaction else ENDED
{% if cookiecutter.io == 'async' %}
    # A driver begins with the first statement.
    has_ended = connection.info["has run"] and not driver.is_in_transaction()
    return ENDED if has_ended else None


# What a driver raises where it is used past SQLAlchemy, as for COPY.
DRIVER_ERRORS = (asyncpg.PostgresError, sqlite3.Error)


class CheckedConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that raises when PostgreSQL answers COMMIT with ROLLBACK."""

    only_read_until: int | None = None
    """What `count_sent` said when its transaction had run nothing but SELECTs."""
    _copies = 0

    def count_sent(self) -> int:
        """Count what was run so far, past SQLAlchemy as well, to see whether more was.

        asyncpg counts all but COPY, for its own pool, and under no public name.
        """
        sent: int = self._protocol.queries_count
        return sent + self._copies

    async def copy_to_table(self, *args: Any, **options: Any) -> str:
        """Copy a file into a table and return the command's tag."""
        self._copies += 1
        return str(await super().copy_to_table(*args, **options))

    async def copy_records_to_table(self, *args: Any, **options: Any) -> str:
        """Copy records into a table and return the command's tag."""
        self._copies += 1
        return str(await super().copy_records_to_table(*args, **options))

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        """Run a command and return its tag."""
        tag: str = await super().execute(query, *args, **options)
        if tag == "ROLLBACK" and query.startswith("COMMIT"):
            raise PendingRollbackError(FAILED)
        return tag


def _is_lost(context: ExceptionContext) -> bool:
    # asyncpg passes on what its socket raises, which SQLAlchemy does not know.
    return isinstance(context.original_exception, ConnectionError)
{% else %}
    status = driver.pgconn.transaction_status
    if status == TransactionStatus.INERROR:
        return FAILED
    # A driver begins with the first statement.
    has_ended = connection.info["has run"] and status == TransactionStatus.IDLE
    return ENDED if has_ended else None


# What a driver raises where it is used past SQLAlchemy, as for COPY.
DRIVER_ERRORS = (psycopg.Error, sqlite3.Error)


def _is_lost(context: ExceptionContext) -> bool:
    # SQLAlchemy knows some of libpq's own errors, by their text. What the server says
    # has an SQLSTATE.
    error: Any = context.original_exception
    is_operational = isinstance(error, context.dialect.loaded_dbapi.OperationalError)
    return is_operational and getattr(error, "sqlstate", "") is None
{% endif %}
