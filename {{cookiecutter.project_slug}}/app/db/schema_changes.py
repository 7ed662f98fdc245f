"""Statements outlive a migration that changes the type of what they return.

A driver prepares a statement once for a connection. When a column of its result has
changed since, PostgreSQL refuses it (SQLSTATE 0A000, "cached plan must not change
result type") and ends its transaction. Here it is run again wherever that changes no
result.
"""

{% if cookiecutter.io == 'async' %}
import re
from functools import lru_cache
from typing import Any, Literal

from sqlalchemy import Connection, Engine, event
{% else %}
from typing import Any, Literal

from psycopg.errors import FeatureNotSupported
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, event
{% endif %}
from sqlalchemy.engine.interfaces import DBAPICursor, ExecutionContext

from app.db.errors import SchemaChangedError

REFUSED = "a migration changed what this statement returns; run the transaction again"
{% if cookiecutter.io == 'async' %}
# A call of a function, which may do anything, or a lock. A cast is no call.
_CALL_OR_LOCK = re.compile(r'(?<![:\w])["\w]+\(| FOR ')


def survive_schema_changes(engine: Engine) -> None:
    """Run a statement again that was prepared before a change of its result.

    That is so in AUTOCOMMIT, for the first statement of a transaction, and on READ
    COMMITTED after nothing but SELECTs without locks and functions. Otherwise the
    transaction is lost: `SchemaChangedError`.
    """

    @event.listens_for(engine, "do_execute")
    def do_execute(
        cursor: DBAPICursor,
        statement: str,
        parameters: Any,
        context: ExecutionContext,
    ) -> Literal[True]:
        connection, dialect = context.root_connection, context.dialect
        driver: Any = connection.connection.driver_connection
        is_repeatable = not driver.is_in_transaction() or (
            driver.only_read_until == driver.count_sent()
        )
        for attempt in range(3):
            try:
                dialect.do_execute(cursor, statement, parameters, context)
                break
            except dialect.loaded_dbapi.InvalidCachedStatementError as error:
                # All connections of the engine will prepare all statements anew.
                context.handle_dbapi_exception(error)
                if not is_repeatable or attempt == 2:
                    raise SchemaChangedError(REFUSED) from error
                connection.connection.rollback()
                context.pre_exec()
        is_repeatable = (
            is_repeatable and _sees_commits(connection) and _only_reads(statement)
        )
        driver.only_read_until = driver.count_sent() if is_repeatable else None
        return True


def _sees_commits(connection: Connection) -> bool:
    """Whether each statement has a snapshot of its own, as on READ COMMITTED."""
    # The first connection is asked for the default when it is already in use.
    default = getattr(connection.dialect, "default_isolation_level", None)
    options = connection.get_execution_options()
    return bool(options.get("isolation_level", default) == "READ COMMITTED")


@lru_cache
def _only_reads(statement: str) -> bool:
    return statement.startswith("SELECT") and not _CALL_OR_LOCK.search(statement)
{% else %}


def survive_schema_changes(engine: Engine) -> None:
    """Prepare statements outside transactions only, and run a refused one again.

    Inside a transaction, a statement that is not prepared costs the service nothing and
    the server a plan.
    """

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.prepare_threshold = 5 if driver.autocommit else None

    @event.listens_for(engine, "do_execute")
    def do_execute(
        cursor: DBAPICursor,
        statement: str,
        parameters: Any,
        context: ExecutionContext,
    ) -> Literal[True]:
        try:
            context.dialect.do_execute(cursor, statement, parameters, context)
        except FeatureNotSupported as error:
            if error.diag.source_function != "RevalidateCachedQuery":
                raise
            connection = context.root_connection.connection
            driver: Any = connection.driver_connection
            if driver.pgconn.transaction_status != TransactionStatus.IDLE:
                raise SchemaChangedError(REFUSED) from error
            # The connection's other statements may be as old.
            driver.prepare_threshold = None
            connection.invalidate(soft=True)
            context.dialect.do_execute(cursor, statement, parameters, context)
        return True
{% endif %}
