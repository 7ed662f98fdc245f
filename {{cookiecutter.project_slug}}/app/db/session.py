{% extends "async.jinja" %}
{% block code %}
"""The session classes: what they refuse, and what they know about their changes.

A `ReadSession` never commits, and the database refuses its writes. A `WriteSession`
may go wherever a `ReadSession` may, not vice versa. Both come from `Database`;
`app/transaction.py` says when one commits.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self, Unpack
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Connection, Engine, event, inspect, orm, select, tuple_
from sqlalchemy.engine import Result
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError
{% if cookiecutter.orm == 'sqlalchemy' %}
from sqlalchemy.ext.asyncio import AsyncSession
{% endif %}
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.session import ORMExecuteState, SessionTransaction
{% if cookiecutter.io == 'async' %}
from sqlalchemy.util.concurrency import in_greenlet
{% endif %}
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
_CHANGES = "what each transaction has changed"
_RELEASED = "the savepoint that is being released"
_BEFORE = "what had been loaded before a savepoint failed"

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

# Of each object the attributes that were loaded, and their values.
Loaded = dict[orm.InstanceState[Any], dict[str, Any]]


@dataclass
class _Changes:
    """What a transaction has changed: objects by a flush, all of a class in bulk."""

    flushed: set[orm.InstanceState[Any]] = field(default_factory=set)
    in_bulk: set[orm.Mapper[Any]] = field(default_factory=set)


# Tasks and threads that a request starts inherit it.
_entered: ContextVar["ReadSession | None"] = ContextVar("entered", default=None)


class ReadSession(AsyncSession):
    """A session for reading. The database refuses its writes."""

    left_undecided = False
    """Whether a unit of work ended with changes that nobody had committed."""
    _forgotten = "objects were changed in a session that only reads: take WriteDep"

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

    async def __aexit__(self, exc_type: Any, exc: Any, traceback: Any) -> None:
        is_forgotten = exc_type is None and (self.left_undecided or self.has_changes)
        await super().__aexit__(exc_type, exc, traceback)
        if is_forgotten:
            raise ForgottenCommitError(self._forgotten)

    @property
    def has_changes(self) -> bool:
        """Whether something was changed, and not yet committed or rolled back.

        Nobody sees what a function does that a SELECT calls, nor what is sent by the
        driver's own connection.
        """
        return bool(
            self.info.get(_CHANGES)
            or self.new
            or self.deleted
            or any(self.is_modified(changed) for changed in self.dirty)
        )

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

    _forgotten = "changes were made, but neither commit() nor rollback() was called"

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
        instances = list(self.identity_map.values())
        loaded = _loaded(map(inspect, instances))
        try:
            await super().rollback()
        except DBAPIError as error:
            _log_loss(error)
        self.info.pop(_CHANGES, None)
        for instance in instances:
            if instance in self and is_discarding:
                self.expunge(instance)
        # SQLAlchemy has expired them: reading one would need a statement.
        _restore(loaded)

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


def _loaded(states: Iterable[orm.InstanceState[Any]]) -> Loaded:
    loaded: Loaded = {}
    for state in states:
        names = state.attrs.keys() & state.dict.keys()
        loaded[state] = {name: state.dict[name] for name in names}
    return loaded


def _restore(loaded: Loaded) -> None:
    """Give objects the values that they have lost."""
    for state, values in loaded.items():
        if state.has_identity and (instance := state.obj()) is not None:
            for name in values.keys() & state.unloaded:
                set_committed_value(instance, name, values[name])


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


def _changed_by(session: Any) -> _Changes:
    """Note a change, and return all of its transaction."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    changes: dict[object, _Changes] = session.info.setdefault(_CHANGES, {})
    return changes.setdefault(transaction, _Changes())


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
{% if cookiecutter.io == 'async' %}
        if not in_greenlet():
            raise LazyLoadError(
                "an attribute that is not loaded was read: await session.refresh() "
                "after expire(), or after a flush that set it to a SQL expression"
            )
{% endif %}
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
    return (
        f"{reason}the object was added, not read; set the relationship itself, or get "
        "the object by a repository whose `loads` name it"
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
        _changed_by(state.session).in_bulk.add(mapper)
        known = _known(state.session, mapper)
        loaded = _loaded(known)
        _expire_columns(state.session, known)
        _read_again(state.session, loaded)
    return result


def _known(session: Any, mapper: orm.Mapper[Any]) -> list[orm.InstanceState[Any]]:
    states: Any = map(inspect, session.identity_map.values())
    return [each for each in states if each.mapper.isa(mapper) and not each.modified]


def _expire_columns(session: Any, states: Iterable[orm.InstanceState[Any]]) -> None:
    for state in states:
        session.expire(state.obj(), state.mapper.column_attrs.keys())


def _read_again(session: Any, loaded: Loaded) -> None:
    """Read what objects have lost, those of a class together.

    An object whose row is gone gets its values back.
    """
    alike: dict[Any, list[Any]] = {}
    for state, values in loaded.items():
        lost = values.keys() & state.unloaded
        names = lost.intersection(state.mapper.relationships.keys())
        alike.setdefault((state.mapper, frozenset(names)), []).append(state.identity)
    try:
        for (mapper, names), ids in alike.items():
            relationships = map(mapper.relationships.get, names)
            options = [orm.selectinload(each.class_attribute) for each in relationships]
            primary_key = tuple_(*mapper.primary_key)
            for start in range(0, len(ids), _AT_ONCE):
                some = primary_key.in_(ids[start : start + _AT_ONCE])
                session.scalars(select(mapper).where(some).options(*options)).all()
    finally:
        _restore(loaded)


@event.listens_for(ReadSession.sync_session_class, "after_flush")
def _after_flush(session: Any, _context: object) -> None:
    if session.in_nested_transaction():
        changed = [each for each in session.dirty if session.is_modified(each)]
        if changed:
            _changed_by(session).flushed.update(map(inspect, changed))


@event.listens_for(ReadSession.sync_session_class, "after_commit")
def _after_commit(session: Any) -> None:
    changes = session.info.get(_CHANGES, {})
    savepoint = session.info[_RELEASED] = session.get_nested_transaction()
    if savepoint is None:
        changes.clear()
        session.info[_COMMITTED] = session.get_transaction()
        note_commit()
    elif savepoint in changes:
        inner = changes.pop(savepoint)
        outer = changes.setdefault(savepoint.parent, _Changes())
        outer.flushed |= inner.flushed
        outer.in_bulk |= inner.in_bulk


@event.listens_for(ReadSession.sync_session_class, "after_rollback")
def _after_rollback(session: Any) -> None:
    savepoint = session.get_nested_transaction()
    if savepoint is None:
        session.info.get(_CHANGES, {}).clear()
        return
    changes = session.info.get(_CHANGES, {}).pop(savepoint, _Changes())
    # SQLAlchemy is about to expire what was changed, but does not know what an UPDATE
    # in bulk has changed.
    in_bulk = [state for mapper in changes.in_bulk for state in _known(session, mapper)]
    changed = changes.flushed.union(map(inspect, session.dirty))
    session.info[_BEFORE] = _loaded([*changed, *in_bulk])
    _expire_columns(session, in_bulk)


@event.listens_for(ReadSession.sync_session_class, "after_transaction_end")
def _after_transaction_end(session: Any, ended: SessionTransaction) -> None:
    if not ended.nested or session.info.pop(_RELEASED, None) is ended:
        return
    loaded: Loaded = session.info.pop(_BEFORE, {})
    # A `with` block that is about to end allows no statement, and no public name tells
    # when it has ended.
    block, session._trans_context_manager = session._trans_context_manager, None
    try:
        # Without a transaction, another error is on its way.
        with session.no_autoflush, suppress(SQLAlchemyError):
            _read_again(session, loaded)
    finally:
        session._trans_context_manager = block
{% endblock %}
