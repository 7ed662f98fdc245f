"""What a database error means to a client: one map, by SQLSTATE."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Index, PrimaryKeyConstraint, UniqueConstraint, exc
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.schema import ColumnCollectionConstraint

from app.db.base import metadata

STATEMENT_FAILED = "cannot commit: a statement failed; roll back first"
TRANSACTION_ENDED = (
    "cannot commit: the transaction has ended; end it by the session's methods only"
)


class DatabaseError(Exception):
    """An error of the session layer's own."""


class DatabaseUnavailableError(DatabaseError):
    """No connection could be made in time."""


class PoolExhaustedError(DatabaseError):
    """No connection became free within the pool timeout."""


class CommitOutcomeUnknownError(DatabaseError):
    """The connection was lost during COMMIT: it may have been saved or not."""


class ForgottenCommitError(DatabaseError):
    """A session changed something, and ended with neither commit nor rollback."""


class SecondSessionError(DatabaseError):
    """A request that holds a session asks for a second one.

    Enough such requests at once hold all connections, and wait for each other.
    """


class SnapshotNeededError(DatabaseError):
    """A second statement on a session for one: it would see a later state."""


class LazyLoadError(DatabaseError):
    """A relationship was read that no query has loaded."""


class DetachedObjectError(DatabaseError):
    """An object does not belong to the session that is to save it."""


class SchemaChangedError(DatabaseError):
    """A migration changed what a statement returns while its transaction ran."""


@dataclass(frozen=True)
class DatabaseProblem:
    """What a client is told: HTTP status, problem type, and a sentence."""

    status: int
    type: str
    detail: str
    retry_after: int | None = None
    """Seconds for the `Retry-After` header."""


EXISTS = DatabaseProblem(409, "already-exists", "Something with these values exists.")
REFERENCED = DatabaseProblem(
    409,
    "reference-conflict",
    "It references something that does not exist, or is still referenced.",
)
STALE = DatabaseProblem(
    409, "stale-data", "It was changed or deleted by another request. Read it again."
)
INVALID = DatabaseProblem(
    422, "invalid-data", "The data breaks a rule of the database."
)
BUSY = DatabaseProblem(
    503, "database-busy", "The data is locked by another request. Try again.", 1
)
TOO_SLOW = DatabaseProblem(504, "database-timeout", "The database took too long.")
UNAVAILABLE = DatabaseProblem(
    503, "database-unavailable", "The database cannot be reached. Try again.", 5
)
EXHAUSTED = DatabaseProblem(
    503, "pool-exhausted", "The service is at capacity. Try again.", 1
)
NOT_MIGRATED = DatabaseProblem(
    503, "migrations-pending", "The service is being updated. Try again.", 5
)
UNKNOWN_COMMIT = DatabaseProblem(
    503,
    "commit-outcome-unknown",
    "The connection was lost while saving: it may have been saved. "
    "Check before retrying.",
)
SHUTTING_DOWN = DatabaseProblem(
    503, "shutting-down", "The service is shutting down. Try again.", 5
)
FAILED_AFTER_COMMIT = DatabaseProblem(
    500,
    "failed-after-commit",
    "The change was saved, but the request failed afterwards. Do not repeat it.",
)
FAILED = DatabaseProblem(500, "about:blank", "Something went wrong on our side.")

# Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
# A prefix is for all codes that begin with it; the longest takes precedence.
BY_SQLSTATE = {
    "23505": EXISTS,
    "23P01": EXISTS,
    "23001": REFERENCED,
    "23503": REFERENCED,
    "23502": INVALID,
    "23514": INVALID,
    "22": INVALID,
    "40001": BUSY,
    "40P01": BUSY,
    "55P03": BUSY,
    "57014": TOO_SLOW,
    "08": UNAVAILABLE,
    "25P03": UNAVAILABLE,
    "53300": UNAVAILABLE,
    "57P": UNAVAILABLE,
}

# https://www.sqlite.org/rescode.html, each beside the SQLSTATE of its kind.
SQLSTATE_OF_SQLITE = {
    "SQLITE_CONSTRAINT_UNIQUE": "23505",
    "SQLITE_CONSTRAINT_PRIMARYKEY": "23505",
    "SQLITE_CONSTRAINT_FOREIGNKEY": "23503",
    "SQLITE_CONSTRAINT_NOTNULL": "23502",
    "SQLITE_CONSTRAINT_CHECK": "23514",
    "SQLITE_CONSTRAINT_DATATYPE": "22000",
    "SQLITE_MISMATCH": "22000",
    "SQLITE_TOOBIG": "22001",
    "SQLITE_BUSY": "40001",
    "SQLITE_LOCKED": "40001",
    "SQLITE_INTERRUPT": "57014",
    "SQLITE_CANTOPEN": "08001",
    "SQLITE_READONLY": "25006",
}
# These have no code of their own.
_NO_TABLE_IN_SQLITE = re.compile("no such (table|column)|has no column named")

# SQLite tells the columns of a unique constraint, or the index of an expression.
_SQLITE_CONSTRAINT = re.compile(
    r"(?:CHECK constraint failed: |UNIQUE constraint failed: index ')([^']+)'?"
    r"|UNIQUE constraint failed: (.+)"
)


def sqlstate(error: BaseException) -> str | None:
    """Return the error's SQLSTATE, on SQLite the one of the same kind."""
    driver_error = getattr(error, "orig", None) or error
    if code := getattr(driver_error, "sqlstate", None):
        return str(code)
    name = getattr(driver_error, "sqlite_errorname", None) or ""
    if name == "SQLITE_ERROR" and _NO_TABLE_IN_SQLITE.search(str(driver_error)):
        return "42P01"
    while name and name not in SQLSTATE_OF_SQLITE:
        name = name.rpartition("_")[0]  # SQLITE_BUSY_SNAPSHOT is a SQLITE_BUSY
    return SQLSTATE_OF_SQLITE.get(name)


def is_unique_violation(error: BaseException) -> bool:
    """Whether a row with such a key exists already."""
    return sqlstate(error) == "23505"


def constraint_of(error: BaseException) -> str | None:
    """Return the name of the constraint that a row would break, if it is known.

    SQLite does not say which foreign key that is.
    """
    driver_error = getattr(error, "driver_exception", None)
    details = getattr(driver_error, "diag", driver_error)  # one of both drivers
    if name := getattr(details, "constraint_name", None):
        return str(name)
    match = _SQLITE_CONSTRAINT.fullmatch(str(getattr(error, "orig", "")))
    if match is None:
        return None
    name, columns = match.groups()
    return name or _unique_constraint(columns)


def is_schema_missing(error: BaseException) -> bool:
    """Whether there is no such table or column: a bug, or migrations are pending."""
    return sqlstate(error) in {"42P01", "42703"}


def is_connection_lost(error: BaseException) -> bool:
    """Whether the connection broke before the COMMIT: nothing is saved."""
    return isinstance(error, exc.DBAPIError) and error.connection_invalidated


def is_retryable(error: BaseException) -> bool:
    """Whether the transaction that failed so may succeed when all of it is run again.

    A deadlock, a serialization failure, a busy SQLite, a changed schema; or the
    connection was lost, but not in COMMIT: that would be `CommitOutcomeUnknownError`.
    """
    if isinstance(error, SchemaChangedError):
        return True
    return sqlstate(error) in {"40001", "40P01"} or is_connection_lost(error)


def to_problem(error: BaseException) -> DatabaseProblem:
    """Return what the client is told about `error`."""
    if isinstance(error, CommitOutcomeUnknownError):
        return UNKNOWN_COMMIT
    if isinstance(error, PoolExhaustedError | exc.TimeoutError):
        return EXHAUSTED
    if isinstance(error, DatabaseUnavailableError) or is_connection_lost(error):
        return UNAVAILABLE
    if isinstance(error, SchemaChangedError):
        return BUSY
    if isinstance(error, StaleDataError):
        return STALE
    code = sqlstate(error) or ""
    for length in (5, 3, 2):
        if problem := BY_SQLSTATE.get(code[:length]):
            detail = _detail(constraint_of(error))
            return replace(problem, detail=detail) if detail else problem
    return FAILED


def _constraints() -> Iterator[ColumnCollectionConstraint | Index]:
    for table in metadata.tables.values():
        for each in (*table.constraints, *table.indexes):
            if isinstance(each, ColumnCollectionConstraint | Index):
                yield each


def _is_unique(constraint: ColumnCollectionConstraint | Index) -> bool:
    if isinstance(constraint, Index):
        return bool(constraint.unique)
    return isinstance(constraint, UniqueConstraint | PrimaryKeyConstraint)


def _unique_constraint(columns: str) -> str:
    """Return the name of the models' constraint on `columns`, as SQLite lists them."""
    for each in _constraints():
        if _is_unique(each) and ", ".join(map(str, each.columns)) == columns:
            return str(each.name)
    return columns


def _detail(name: str | None) -> str | None:
    """Return what the models say of the constraint with this name, in its `info`."""
    for each in _constraints() if name else ():
        if each.name == name:
            infos: list[dict[Any, Any]] = [each.info]
            if _is_unique(each) and len(each.columns) == 1:
                infos += [column.info for column in each.columns]
            details = [info["detail"] for info in infos if "detail" in info]
            return details[0] if details else None
    return None
