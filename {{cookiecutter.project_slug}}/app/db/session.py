{% extends "async.jinja" %}
{% block code %}
"""The session classes: what they refuse, and what they know about their changes.

A `ReadSession` never commits, and the database refuses its writes. A `WriteSession`
may go wherever a `ReadSession` may, not vice versa. Both come from `Database`;
`app/transaction.py` says when one commits.
"""

import re
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Self, Unpack
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Connection, Engine, event, inspect, select, tuple_
from sqlalchemy.engine import Result
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError, InvalidRequestError
{% if cookiecutter.orm == 'sqlalchemy' %}
from sqlalchemy.ext.asyncio import AsyncSession
{% endif %}
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.mapper import Mapper
from sqlalchemy.orm.session import (
    ORMExecuteState,
    SessionTransaction,
    object_session,
)
{% if cookiecutter.orm == 'sqlmodel' %}
from sqlmodel.ext.asyncio.session import AsyncSession
{% endif %}

from app.context import current_route, is_in_endpoint, note_commit
from app.db.errors import (
    DetachedObjectError,
    ForgottenCommitError,
    LazyLoadError,
    SecondSessionError,
    SnapshotNeededError,
)
from app.db.timeouts import Timeouts, set_local, timeout_parameters
from app.logs import logger

# Keys of a session's `info`.
ONE_STATEMENT = "may run one statement"
_CLOSED = "is closed"
_COMMITTED = "the last transaction that was committed"
_CHANGED = "transactions with changes, each with the mappers changed in bulk"
_RELEASED = "the savepoint that is being released"
_EXPIRED = "what was expired inside a savepoint"

# A statement that changes rows, or may: behind comments, and within a WITH as well.
_SPACE = r"(?>\s|--[^\n]*|/\*.*?\*/)*+"
_WRITES = re.compile(
    rf"{_SPACE}(?:(?:insert|update|delete|merge|replace|truncate|do|call)\b"
    rf"|with\b.*[()]{_SPACE}(?:insert|update|delete|merge)\b)",
    re.IGNORECASE | re.DOTALL,
)
# How many rows are read again by one statement: drivers limit its parameters.
_AT_ONCE = 1_000

# The session that works on a connection.
_session_on = WeakKeyDictionary[Connection, "ref[Any]"]()

# Tasks and threads that a request starts inherit it.
_entered: ContextVar["ReadSession | None"] = ContextVar("entered", default=None)


class ReadSession(AsyncSession):
    """A session for reading. The database refuses its writes."""

{% if cookiecutter.io == 'async' %}
    # Listeners on this class hear our own sessions, not every session of the process.
    sync_session_class: type[Any] = type(
        "SyncSession", (AsyncSession.sync_session_class,), {}
    )

{% endif %}
    async def __aenter__(self) -> Self:
        held = _entered.get()
        if held is not None and _CLOSED not in held.info and is_in_endpoint():
            raise SecondSessionError(
                f"{current_route()} holds a session already, and a second connection "
                "would deadlock the pool under load: use it, or take no WriteDep, "
                "ReadDep or SnapshotDep where a service opens a session of its own"
            )
        _entered.set(self)
        return await super().__aenter__()

    async def close(self) -> None:
        """Close it for good, for all tasks; its connection goes back to the pool."""
        self.info[_CLOSED] = True
        try:
            await super().close()
        except DBAPIError as error:
            _log_loss(error)

    async def set_timeouts(self, **seconds: Unpack[Timeouts]) -> None:
        """Give this transaction timeouts of its own, in seconds; they end with it.

        On SQLite, set `lock` before the first statement: BEGIN takes the only lock.
        `idle_in_transaction` has no effect there. Raises `SnapshotNeededError` where
        each statement is a transaction.
        """
        if ONE_STATEMENT in self.info:
            raise SnapshotNeededError("use SnapshotDep to set timeouts")
        parameters = timeout_parameters(**seconds)
        if not parameters:
            return
        if self.get_bind().dialect.name == "postgresql":
            connection = await self.connection()
            await connection.execute(set_local(parameters))
        elif self.in_transaction():
            connection = await self.connection()
            await connection.execution_options(**parameters)
        else:
            await self.connection(execution_options=parameters)


class WriteSession(ReadSession):
    """A session for writing. It saves only what is committed."""

    left_undecided = False
    """Whether a unit of work ended with uncommitted changes."""

    async def __aexit__(self, exc_type: Any, exc: Any, traceback: Any) -> None:
        is_forgotten = exc_type is None and (self.left_undecided or self.has_changes)
        await super().__aexit__(exc_type, exc, traceback)
        if is_forgotten:
            raise ForgottenCommitError(
                "changes were made, but neither commit() nor rollback() was called"
            )

    @property
    def has_changes(self) -> bool:
        """Whether something was changed, and not yet committed or rolled back.

        Nobody sees what a function does that a SELECT calls, nor what is sent by the
        driver's own connection.
        """
        return bool(
            self.info.get(_CHANGED)
            or self.new
            or self.deleted
            or any(self.is_modified(changed) for changed in self.dirty)
        )

    @property
    def committed(self) -> bool:
        """Whether a transaction of this session was committed."""
        return _COMMITTED in self.info

    async def close(self) -> None:
        """Close it for good; what was not committed is rolled back."""
        try:
            await self.rollback()
        finally:
            await super().close()

    async def rollback(self) -> None:
        """Discard what was not committed. What was loaded stays readable.

        If there was something to discard, what was loaded is detached, since it may
        hold discarded values; what was added may be added again.
        """
        transaction = self.sync_session.get_transaction()
        # A COMMIT that was interrupted when it had ended leaves nothing to discard.
        if transaction in {None, self.info.get(_COMMITTED)}:
            return
        is_discarding = self.has_changes
        loaded = [(each, _loaded_values(each)) for each in self.identity_map.values()]
        try:
            await super().rollback()
        except DBAPIError as error:
            _log_loss(error)
        # SQLAlchemy has expired them: reading one would need a statement.
        for instance, values in loaded:
            if instance in self and is_discarding:
                self.expunge(instance)
            if inspect(instance).has_identity:
                for name, value in values.items():
                    set_committed_value(instance, name, value)

    def refuse_detached(self, instance: object, *, may_be_new: bool = False) -> None:
        """Raise `DetachedObjectError` unless a change of `instance` would be saved."""
        state: Any = inspect(instance)
        if instance in self or (may_be_new and state.transient):
            return
        raise DetachedObjectError(
            f"this {type(instance).__name__} does not belong to the session (it is "
            "another session's, or was rolled back): load it again before changing it"
        )


def _log_loss(error: DBAPIError) -> None:
    # The server rolls back by itself, and what was committed before is saved.
    logger.warning("%s: connection lost while closing: %r", current_route(), error)


def _loaded_values(instance: object) -> dict[str, Any]:
    state: Any = inspect(instance)
    return {name: state.dict[name] for name in state.attrs.keys() & state.dict.keys()}


def notice_changes(engine: Engine) -> None:
    """Tell the session of a connection when a statement has changed rows.

    The session itself does not hear of all: bulk methods, CTEs, its connection.
    """

    @event.listens_for(engine, "after_cursor_execute")
    def after_cursor_execute(
        connection: Connection, cursor: DBAPICursor, statement: str, *_: Any
    ) -> None:
        # SQLite counts the rows of RETURNING only when they are read.
        has_changed = cursor.rowcount != 0 or cursor.description is not None
        if has_changed and _WRITES.match(statement):
            session = _session_on.get(connection, _nobody)()
            if session is not None and session.in_transaction():
                _changed_by(session)


def _nobody() -> None:
    """Stand for the session of a connection that no session has."""


def _changed_by(session: Any) -> set[Mapper[Any]]:
    """Note a change, and return which mappers its transaction has changed in bulk."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    changed: dict[object, set[Mapper[Any]]] = session.info.setdefault(_CHANGED, {})
    return changed.setdefault(transaction, set())


@event.listens_for(ReadSession.sync_session_class, "after_begin")
def _after_begin(
    session: Any, _transaction: SessionTransaction, connection: Connection
) -> None:
    # Another task was about to take it, so that closing the session did not see it.
    if _CLOSED in session.info:
        connection.detach()
        connection.close()
        raise InvalidRequestError(
            "the session is closed: do not share a session between tasks"
        )
    _session_on[connection] = ref(session)


@event.listens_for(ReadSession.sync_session_class, "do_orm_execute")
def _do_orm_execute(state: ORMExecuteState) -> Result[Any] | None:
    info = state.session.info
    if info.get(ONE_STATEMENT):
        raise SnapshotNeededError(
            "a ReadDep session runs one statement: use SnapshotDep, or "
            "Database.snapshot(), for several"
        )
    if ONE_STATEMENT in info:
        info[ONE_STATEMENT] = True
    statement = state.statement
    if state.is_select:
        if state.lazy_loaded_from is not None:
            raise LazyLoadError(_what_helps(state))
        # No public name tells whether a SELECT locks. What it has locked is to be read
        # as it is now, not as it was when the session read it before.
        if getattr(statement, "_for_update_arg", None) is not None:
            state.update_execution_options(populate_existing=True)
        return None
    if state.is_update:
        return _update_and_reload(state)
    if state.is_insert or state.is_delete:
        state.update_execution_options(populate_existing=True)  # for RETURNING
    return None


def _what_helps(state: ORMExecuteState) -> str:
    relationship = state.loader_strategy_path and state.loader_strategy_path[-1]
    reason = f"{relationship} was not loaded: "
    if getattr(state.lazy_loaded_from, "insert_order", None) is None:
        return f"{reason}name it in `loads`"
    # Its session knows the object, so that no repository reads it.
    return (
        f"{reason}the object was added, not read; set the relationship itself, or read "
        "the object by session.get(…, options=loads, populate_existing=True)"
    )


def _update_and_reload(state: ORMExecuteState) -> Result[Any]:
    """Run an UPDATE, and read again what the session holds of its table.

    SQLAlchemy would compute new values from those in memory, which may be old.
    """
    result = state.invoke_statement(
        execution_options={"synchronize_session": False, "populate_existing": True}
    )
    mapper = state.bind_mapper
    if mapper is not None and getattr(result, "rowcount", None) != 0:
        _changed_by(state.session).add(mapper)
        _read_again(state.session, mapper)
    return result


def _read_again(session: Any, mapper: Mapper[Any]) -> None:
    known: Any = map(inspect, session.identity_map.values())
    keys = [each.identity for each in known if each.mapper is mapper]
    primary_key = tuple_(*mapper.primary_key)
    for start in range(0, len(keys), _AT_ONCE):
        some = primary_key.in_(keys[start : start + _AT_ONCE])
        query = select(mapper).where(some)
        session.scalars(query, execution_options={"populate_existing": True}).all()


@event.listens_for(ReadSession.sync_session_class, "after_commit")
def _after_commit(session: Any) -> None:
    changed = session.info.get(_CHANGED, {})
    savepoint = session.info[_RELEASED] = session.get_nested_transaction()
    if savepoint is None:
        changed.clear()
        session.info[_COMMITTED] = session.get_transaction()
        note_commit()
    elif savepoint in changed:
        in_bulk = changed.pop(savepoint)
        changed.setdefault(savepoint.parent, set()).update(in_bulk)


@event.listens_for(ReadSession.sync_session_class, "after_soft_rollback")
def _after_soft_rollback(session: Any, ended: SessionTransaction) -> None:
    if ended.parent is None:
        session.info.get(_CHANGED, {}).clear()


@event.listens_for(Mapper, "expire")
def _expire(instance: Any, _names: object) -> None:
    # SQLAlchemy expires what was changed inside a savepoint that is rolled back.
    session = object_session(instance)
    is_ours = isinstance(session, ReadSession.sync_session_class)
    if session is not None and is_ours and session.in_nested_transaction():
        session.info.setdefault(_EXPIRED, []).append(instance)


@event.listens_for(ReadSession.sync_session_class, "after_transaction_end")
def _after_transaction_end(session: Any, ended: SessionTransaction) -> None:
    if not ended.nested:
        return
    expired = session.info.pop(_EXPIRED, [])
    if session.info.pop(_RELEASED, None) is not ended:
        in_bulk = session.info.get(_CHANGED, {}).pop(ended, set())
        if session.is_active:
            _reload(session, expired, in_bulk)


def _reload(session: Any, expired: list[Any], in_bulk: set[Mapper[Any]]) -> None:
    """Read what may have been changed inside the savepoint.

    SQLAlchemy does not know what an UPDATE in bulk has changed.
    """
    # A `with` block that is about to end allows no statement, and no public name tells
    # when it has ended.
    block, session._trans_context_manager = session._trans_context_manager, None
    try:
        with session.no_autoflush, suppress(DBAPIError):
            for mapper in in_bulk:
                _read_again(session, mapper)
            for instance in expired:
                if instance in session and inspect(instance).expired:
                    session.refresh(instance)
    finally:
        session._trans_context_manager = block
{% endblock %}
