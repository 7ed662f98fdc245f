"""A transaction in which a statement has failed is not committed."""

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import PendingRollbackError

_FAILED = "a statement failed"


def refuse_to_commit_failures(engine: Engine) -> None:
    """Make a COMMIT after a failed statement raise `PendingRollbackError` (S1).

    PostgreSQL has given such a transaction up, and answers COMMIT with a ROLLBACK that
    no driver speaks of. SQLite would save the rest, and is to behave the same. Taking
    back the savepoint in which it failed makes it good.
    """

    @event.listens_for(engine, "handle_error")
    def handle_error(context: ExceptionContext) -> None:
        if context.connection is not None and not context.is_disconnect:
            context.connection.info[_FAILED] = context.sqlalchemy_exception

    @event.listens_for(engine, "begin")
    @event.listens_for(engine, "rollback")
    def forget(connection: Connection) -> None:
        if not connection.invalidated:
            connection.info.pop(_FAILED, None)

    @event.listens_for(engine, "rollback_savepoint")
    def forget_part(connection: Connection, _name: str, _context: None) -> None:
        forget(connection)

    @event.listens_for(engine, "commit")
    def commit(connection: Connection) -> None:
        if connection.invalidated or _FAILED not in connection.info:
            return
        # Raising keeps SQLAlchemy from doing so, and the connection is not to go back
        # to the pool like that.
        connection.dialect.do_rollback(connection.connection)
        error = connection.info.pop(_FAILED)
        raise PendingRollbackError("a statement failed: roll back") from error
