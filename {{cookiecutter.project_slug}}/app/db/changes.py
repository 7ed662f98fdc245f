"""What a session has changed, and reading again what it holds of that."""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Connection, Engine, event, inspect, orm, select, tuple_
from sqlalchemy.engine import Result
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.session import ORMExecuteState, SessionTransaction

# Keys of a session's `info`.
CHANGES = "what each transaction has changed"
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

# Of each object the attributes that are loaded.
Values = dict[orm.InstanceState[Any], dict[str, Any]]


@dataclass
class _Changes:
    """What a transaction has changed: objects by a flush, all of a class in bulk."""

    flushed: set[orm.InstanceState[Any]] = field(default_factory=set)
    in_bulk: set[orm.Mapper[Any]] = field(default_factory=set)


def follow_changes(session_class: type[orm.Session]) -> None:
    """Let sessions know what they have changed, and keep what they hold readable.

    Rolling back to a savepoint expires what was changed inside it: it is read again, so
    that no attribute needs a statement when somebody reads it.
    """
    event.listen(session_class, "after_begin", _after_begin)
    event.listen(session_class, "after_flush", _after_flush)
    event.listen(session_class, "after_commit", _after_commit)
    event.listen(session_class, "after_rollback", _after_rollback)
    event.listen(session_class, "after_transaction_end", _after_transaction_end)


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
            reference = _session_on.get(connection)
            session = reference() if reference else None
            if session is not None and session.in_transaction():
                _changed_by(session)


def _changed_by(session: Any) -> _Changes:
    """Note a change, and return all of its transaction."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    changes: dict[object, _Changes] = session.info.setdefault(CHANGES, {})
    return changes.setdefault(transaction, _Changes())


def values_of(states: Iterable[orm.InstanceState[Any]]) -> Values:
    """Return what is loaded of each object."""
    held: Values = {}
    for state in states:
        names = state.attrs.keys() & state.dict.keys()
        held[state] = {name: state.dict[name] for name in names}
    return held


def restore(held: Values) -> None:
    """Give objects the values that they have lost."""
    for state, values in held.items():
        if state.has_identity and (instance := state.obj()) is not None:
            for name in values.keys() & state.unloaded:
                set_committed_value(instance, name, values[name])


def update_and_reload(state: ORMExecuteState) -> Result[Any]:
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
        held = values_of(known)
        _expire_columns(state.session, known)
        _read_again(state.session, held)
    return result


def _known(session: Any, mapper: orm.Mapper[Any]) -> list[orm.InstanceState[Any]]:
    states: Any = map(inspect, session.identity_map.values())
    return [each for each in states if each.mapper.isa(mapper) and not each.modified]


def _expire_columns(session: Any, states: Iterable[orm.InstanceState[Any]]) -> None:
    for state in states:
        session.expire(state.obj(), state.mapper.column_attrs.keys())


def _read_again(session: Any, held: Values) -> None:
    """Read what objects have lost, those of a class together.

    An object whose row is gone gets its values back.
    """
    alike: dict[Any, list[Any]] = {}
    for state, values in held.items():
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
        restore(held)


def _after_begin(
    session: Any, _transaction: SessionTransaction, connection: Connection
) -> None:
    _session_on[connection] = ref(session)


def _after_flush(session: Any, _context: object) -> None:
    if session.in_nested_transaction():
        changed = [each for each in session.dirty if session.is_modified(each)]
        if changed:
            _changed_by(session).flushed.update(map(inspect, changed))


def _after_commit(session: Any) -> None:
    changes = session.info.get(CHANGES, {})
    savepoint = session.info[_RELEASED] = session.get_nested_transaction()
    if savepoint is None:
        changes.clear()
    elif savepoint in changes:
        inner = changes.pop(savepoint)
        outer = changes.setdefault(savepoint.parent, _Changes())
        outer.flushed |= inner.flushed
        outer.in_bulk |= inner.in_bulk


def _after_rollback(session: Any) -> None:
    savepoint = session.get_nested_transaction()
    if savepoint is None:
        session.info.get(CHANGES, {}).clear()
        return
    changes = session.info.get(CHANGES, {}).pop(savepoint, _Changes())
    # SQLAlchemy is about to expire what was changed, but does not know what an UPDATE
    # in bulk has changed.
    in_bulk = [state for mapper in changes.in_bulk for state in _known(session, mapper)]
    changed = changes.flushed.union(map(inspect, session.dirty))
    session.info[_BEFORE] = values_of([*changed, *in_bulk])
    _expire_columns(session, in_bulk)


def _after_transaction_end(session: Any, ended: SessionTransaction) -> None:
    if not ended.nested or session.info.pop(_RELEASED, None) is ended:
        return
    held: Values = session.info.pop(_BEFORE, {})
    # A `with` block that is about to end allows no statement, and no public name tells
    # when it has ended.
    block, session._trans_context_manager = session._trans_context_manager, None
    try:
        # Without a transaction, another error is on its way.
        with session.no_autoflush, suppress(SQLAlchemyError):
            _read_again(session, held)
    finally:
        session._trans_context_manager = block
