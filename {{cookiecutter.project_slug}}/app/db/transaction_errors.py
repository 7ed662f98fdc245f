"""Classify errors: has the transaction failed, ended, or an unknown outcome?"""

import re
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import (
    DBAPICursor,
    ExceptionContext,
    ExecutionContext,
)
from sqlalchemy.exc import DBAPIError, InvalidRequestError, PendingRollbackError

from app.db.driver import is_lost, reason_not_to_commit
from app.db.errors import (
    STATEMENT_FAILED,
    TRANSACTION_ENDED,
    CommitOutcomeUnknownError,
    sqlstate,
)

_READ_ONLY = "25006"
# What a standby says to BEGIN ISOLATION LEVEL SERIALIZABLE, among much else.
_NOT_SUPPORTED = "0A000"

# A statement that begins or ends a transaction; a savepoint is none.
_CONTROL = re.compile(
    r"\s*(BEGIN|START|COMMIT|END|ABORT|ROLLBACK(?!.*\bTO\b)|PREPARE\s+TRANSACTION)\b",
    re.IGNORECASE,
)


@dataclass(slots=True)
class _Transaction:
    """What is known of a connection's transaction."""

    has_run: bool = False
    """Whether it has run a statement."""
    failure: Exception | None = None
    """The first error that was not rolled back."""
    failed_after: int | None = None
    """The number of the last savepoint before that error; None without one."""
    ending: str = ""
    """COMMIT or ROLLBACK, once that is being sent."""
    savepoint: int = 0
    """The connection's last one: SQLAlchemy calls them sa_savepoint_1 and so on."""

    def forget_failure(self) -> None:
        """Regard it as rolled back."""
        self.failure = self.failed_after = None


def give_up_standbys(engine: Engine) -> None:
    """Treat a server that refuses to write as lost, and all connections with it.

    After a failover, a proxy or a pooler may still lead to what is a standby now.
    Nothing was saved, and the next connection may be to the new primary.
    """

    @event.listens_for(engine, "handle_error")
    def handle_error(context: ExceptionContext) -> None:
        code = sqlstate(context.original_exception)
        if code == _READ_ONLY or (code == _NOT_SUPPORTED and _failed_to_begin(context)):
            context.is_disconnect = True


def classify_read_errors(engine: Engine) -> None:
    """Notice lost connections of an engine that only reads; refuse BEGIN and COMMIT.

    It listens to the dialect alone. Events of the engine itself would cost each read
    more than all that they do here: SQLAlchemy joins their listeners anew for each
    connection.

    A connection whose ROLLBACK fails is not used again.
    """

    @event.listens_for(engine, "handle_error")
    def handle_error(context: ExceptionContext) -> None:
        if context.connection is None or context.connection.invalidated:
            return
        # What is not the execution of a statement is a ROLLBACK.
        if is_lost(context) or context.execution_context is None:
            _regard_as_lost(context)
        _raise_what_is_raw(context)

    @event.listens_for(engine, "do_execute")
    def refuse_control(
        _cursor: DBAPICursor,
        statement: str,
        _parameters: Any,
        context: ExecutionContext,
    ) -> None:
        _refuse_control(context.root_connection, statement)


def classify_transaction_errors(engine: Engine) -> None:
    """Make errors say what became of the transaction.

    COMMIT raises `PendingRollbackError` when it would save nothing: after a failed
    statement, where PostgreSQL answers it with ROLLBACK and no driver raises, and when
    the transaction has ended already. SQLite would save what did not fail, and behaves
    the same. Rolling back to the savepoint in which a statement failed clears it.

    A COMMIT that loses its connection raises `CommitOutcomeUnknownError`.

    A connection whose ROLLBACK fails is not used again.
    """
    transactions = WeakKeyDictionary[Connection, _Transaction]()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        transaction = transactions.setdefault(connection, _Transaction())
        transaction.forget_failure()
        transaction.has_run, transaction.ending = False, ""

    @event.listens_for(engine, "handle_error")
    def handle_error(context: ExceptionContext) -> None:
        connection, error = context.connection, context.original_exception
        if connection is None or connection.invalidated:
            return
        transaction = transactions.setdefault(connection, _Transaction())
        if is_lost(context) or transaction.ending == "ROLLBACK":
            _regard_as_lost(context)
        if not context.is_disconnect:
            if transaction.failed_after is None:
                transaction.failure = context.sqlalchemy_exception
                transaction.failed_after = transaction.savepoint
        elif transaction.ending == "COMMIT" and isinstance(error, Exception):
            raise CommitOutcomeUnknownError("connection lost in COMMIT")
        _raise_what_is_raw(context)

    @event.listens_for(engine, "before_cursor_execute")
    def refuse_control(connection: Connection, *execution: Any) -> None:
        statement: str = execution[1]
        # SQLite's own BEGIN comes before the transaction.
        if transaction := transactions.get(connection):
            transaction.has_run = True
        _refuse_control(connection, statement)

    @event.listens_for(engine, "rollback")
    def rollback(connection: Connection) -> None:
        transaction = transactions[connection]
        transaction.forget_failure()
        transaction.ending = "ROLLBACK"

    @event.listens_for(engine, "savepoint")
    def savepoint(connection: Connection, _name: None) -> None:
        transactions[connection].savepoint += 1

    @event.listens_for(engine, "rollback_savepoint")
    def rollback_savepoint(connection: Connection, name: str, _context: None) -> None:
        transaction = transactions[connection]
        number = int(name.rpartition("_")[2])
        if transaction.failed_after is not None and number <= transaction.failed_after:
            transaction.forget_failure()

    @event.listens_for(engine, "commit")
    def commit(connection: Connection) -> None:
        transaction = transactions[connection]
        reason = None if transaction.failed_after is None else STATEMENT_FAILED
        if _is_in_transaction(connection):
            has_run = transaction.has_run
            reason = reason or _reason_not_to_commit(connection, has_run=has_run)
        if reason:
            # Raising keeps SQLAlchemy from doing so, and the connection is not to go
            # back to the pool like that.
            connection.dialect.do_rollback(connection.connection)
            cause = transaction.failure
            transaction.forget_failure()
            raise PendingRollbackError(reason) from cause
        transaction.ending = "COMMIT"


def _regard_as_lost(context: ExceptionContext) -> None:
    """Replace the connection, and no other of its pool."""
    context.is_disconnect = True
    context.invalidate_pool_on_disconnect = False


def _raise_what_is_raw(context: ExceptionContext) -> None:
    """Raise a loss that SQLAlchemy did not recognize as it raises others."""
    error = context.original_exception
    # Being cancelled is no `Exception`.
    is_raw = context.sqlalchemy_exception is None and isinstance(error, Exception)
    if context.is_disconnect and is_raw:
        raise DBAPIError(context.statement, None, error, connection_invalidated=True)


def _refuse_control(connection: Connection, statement: str) -> None:
    if _CONTROL.match(statement) and _is_in_transaction(connection):
        raise InvalidRequestError(
            f"{statement.split()[0].upper()} is not allowed as a statement; "
            "call the session's commit(), rollback() or begin_nested()"
        )


def _failed_to_begin(context: ExceptionContext) -> bool:
    """Whether the server refused the BEGIN that came before the first statement."""
    connection = context.connection
    if connection is None or not _is_in_transaction(connection):
        return False
    return _reason_not_to_commit(connection, has_run=True) == TRANSACTION_ENDED


def _is_in_transaction(connection: Connection) -> bool:
    """Whether SQLAlchemy believes so; AUTOCOMMIT has none."""
    options = connection.get_execution_options()
    is_autocommit = options.get("isolation_level") == "AUTOCOMMIT"
    return connection.in_transaction() and not is_autocommit


def _reason_not_to_commit(connection: Connection, *, has_run: bool) -> str | None:
    """Return what the driver knows of the transaction, and SQLAlchemy does not."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        return None if driver.in_transaction else TRANSACTION_ENDED
    return reason_not_to_commit(driver, has_run=has_run)
