"""What a failure makes of a transaction: given up, lost, or nobody knows."""

{% if cookiecutter.io == 'sync' %}
from typing import Any
{% endif %}
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import ExceptionContext
{% if cookiecutter.io == 'async' %}
from sqlalchemy.exc import DBAPIError, PendingRollbackError
{% else %}
from sqlalchemy.exc import PendingRollbackError
{% endif %}

from app.db.errors import CommitOutcomeUnknownError


def tell_failures_apart(engine: Engine) -> None:
    """Make errors say what became of the transaction (S1, S9).

    COMMIT after a failed statement raises `PendingRollbackError`: PostgreSQL has given
    such a transaction up, and answers COMMIT with a ROLLBACK that no driver speaks of.
    SQLite would save the rest, and is to behave the same. Taking back the savepoint in
    which it failed makes it good.

    A COMMIT that loses its connection raises `CommitOutcomeUnknownError`.

    A connection whose ROLLBACK fails is not used again.
    """
    failed = WeakKeyDictionary[Connection, Exception | None]()
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
            failed[connection] = context.sqlalchemy_exception
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

    @event.listens_for(engine, "rollback")
    def rollback(connection: Connection) -> None:
        failed.pop(connection, None)
        ending[connection] = "ROLLBACK"

    @event.listens_for(engine, "rollback_savepoint")
    def rollback_part(connection: Connection, _name: str, _context: None) -> None:
        failed.pop(connection, None)

    @event.listens_for(engine, "commit")
    def commit(connection: Connection) -> None:
        if connection in failed:
            # Raising keeps SQLAlchemy from doing so, and the connection is not to go
            # back to the pool like that.
            connection.dialect.do_rollback(connection.connection)
            error = failed.pop(connection)
            raise PendingRollbackError("a statement failed: roll back") from error
        ending[connection] = "COMMIT"


{% if cookiecutter.io == 'async' %}
def _is_lost(context: ExceptionContext) -> bool:
    # asyncpg passes on what its socket raises, which SQLAlchemy does not know.
    return isinstance(context.original_exception, ConnectionError)
{% else %}
def _is_lost(context: ExceptionContext) -> bool:
    # SQLAlchemy knows some of libpq's own errors, by their text. What the server says
    # has an SQLSTATE.
    error: Any = context.original_exception
    is_operational = isinstance(error, context.dialect.loaded_dbapi.OperationalError)
    return is_operational and getattr(error, "sqlstate", "") is None
{% endif %}
