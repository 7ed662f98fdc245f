"""Classify errors: has the transaction failed, ended, or an unknown outcome?"""

import re
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import DBAPIError, InvalidRequestError, PendingRollbackError

from app.db.driver import is_lost, reason_not_to_commit
from app.db.errors import (
    STATEMENT_FAILED,
    TRANSACTION_ENDED,
    CommitOutcomeUnknownError,
    sqlstate,
)

_READ_ONLY = "25006"

# A statement that begins or ends a transaction; a savepoint is none.
_CONTROL = re.compile(
    r"\s*(BEGIN|START|COMMIT|END|ABORT|ROLLBACK(?!.*\bTO\b)|PREPARE\s+TRANSACTION)\b",
    re.IGNORECASE,
)


def give_up_standbys(engine: Engine) -> None:
    """Treat a server that refuses to write as lost, and all connections with it.

    After a failover, a proxy or a pooler may still lead to what is a standby now.
    Nothing was saved, and the next connection may be to the new primary.
    """

    @event.listens_for(engine, "handle_error")
    def handle_error(context: ExceptionContext) -> None:
        if sqlstate(context.original_exception) == _READ_ONLY:
            context.is_disconnect = True


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
        if is_lost(context) or ending.get(connection) == "ROLLBACK":
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = False
        if not context.is_disconnect:
            failure = (context.sqlalchemy_exception, last.get(connection, 0))
            failed.setdefault(connection, failure)
        elif not isinstance(error, Exception):
            return  # It is being cancelled.
        elif ending.get(connection) == "COMMIT":
            raise CommitOutcomeUnknownError("connection lost in COMMIT")
        elif context.sqlalchemy_exception is None:
            raise DBAPIError(
                context.statement, None, error, connection_invalidated=True
            )

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
        reason = STATEMENT_FAILED if connection in failed else None
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
        return None if driver.in_transaction else TRANSACTION_ENDED
    return reason_not_to_commit(driver, has_run=connection.info["has run"])
