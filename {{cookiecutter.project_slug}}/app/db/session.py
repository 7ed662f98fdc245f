{% extends "async.jinja" %}
{% block code %}
"""The session classes: what they refuse, and what they know about their changes.

A `ReadSession` never commits, and the database refuses its writes. A `WriteSession`
may go wherever a `ReadSession` may, not vice versa. Both come from `Database`;
`app/transaction.py` says when one commits.
"""

from contextvars import ContextVar
from typing import Any, Self, Unpack

from sqlalchemy import Connection, event, inspect
from sqlalchemy.engine import Result
from sqlalchemy.exc import DBAPIError, InvalidRequestError
{% if cookiecutter.orm == 'sqlalchemy' %}
from sqlalchemy.ext.asyncio import AsyncSession
{% endif %}
from sqlalchemy.orm.session import ORMExecuteState, SessionTransaction
{% if cookiecutter.io == 'async' %}
from sqlalchemy.util.concurrency import in_greenlet
{% endif %}
{% if cookiecutter.orm == 'sqlmodel' %}
from sqlmodel.ext.asyncio.session import AsyncSession
{% endif %}

from app.context import current_route, is_in_endpoint, note_commit
from app.db.changes import (
    CHANGES,
    follow_changes,
    restore,
    update_and_reload,
    values_of,
)
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
WAS_RUN = "whether the one statement that it may run was run"
_OPEN = "is between the beginning and the end of its block"
_COMMITTED = "the last transaction that was committed"

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
        if held is not None and _OPEN in held.info and is_in_endpoint():
            raise SecondSessionError(
                f"{current_route()} holds a session already, and a second connection "
                "would deadlock the pool under load: use it, or take no WriteDep, "
                "ReadDep or SnapshotDep where a service opens a session of its own"
            )
        _entered.set(self)
        self.info[_OPEN] = True
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
        session = self.sync_session
        if session.info.get(CHANGES):
            return True
        # What is public copies all that it counts, and each read would pay for it.
        return not session._is_clean() and bool(
            session.new
            or session.deleted
            or any(map(session.is_modified, session.dirty))
        )

    async def close(self) -> None:
        """Close it for good, for all tasks; its connection goes back to the pool."""
        self.info.pop(_OPEN, None)
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
        if WAS_RUN in self.info:
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
        held = values_of(map(inspect, instances))
        try:
            await super().rollback()
        except DBAPIError as error:
            _log_loss(error)
        self.info.pop(CHANGES, None)
        for instance in instances:
            if instance in self and is_discarding:
                self.expunge(instance)
        # SQLAlchemy has expired them: reading one would need a statement.
        restore(held)

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


@event.listens_for(ReadSession.sync_session_class, "after_begin")
def _after_begin(
    session: Any, _transaction: SessionTransaction, connection: Connection
) -> None:
    # Closing the session does not see a connection that another task is about to take.
    if _OPEN not in session.info:
        connection.detach()
        connection.close()
        raise InvalidRequestError(
            "the session is not open: use it inside the block that opens it, and do "
            "not share it between tasks"
        )


@event.listens_for(ReadSession.sync_session_class, "do_orm_execute")
def _do_orm_execute(state: ORMExecuteState) -> Result[Any] | None:
    if state.is_select and state.lazy_loaded_from is not None:
        raise LazyLoadError(_what_helps(state))
    info = state.session.info
    if info.get(WAS_RUN):
        raise SnapshotNeededError(
            "a ReadDep session runs one statement, and selectinload runs another: use "
            "SnapshotDep, or Database.snapshot(), for several"
        )
    if WAS_RUN in info:
        info[WAS_RUN] = True
    statement = state.statement
    if state.is_select:
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
        return update_and_reload(state)
    if state.is_insert or state.is_delete:
        state.update_execution_options(populate_existing=True)  # for RETURNING
    return None


def _what_helps(state: ORMExecuteState) -> str:
    relationship = state.loader_strategy_path and state.loader_strategy_path[-1]
    reason = f"{relationship} was not loaded: "
    # SQLAlchemy numbers what is added, and no public name tells.
    if getattr(state.lazy_loaded_from, "insert_order", None) is None:
        return f"{reason}name it in `loads`"
    return (
        f"{reason}the object was added, not read; set the relationship itself, or get "
        "the object by a repository whose `loads` name it"
    )


@event.listens_for(ReadSession.sync_session_class, "before_commit")
def _before_commit(session: Any) -> None:
    if session.get_nested_transaction() is None:
        note_commit(is_over=False)


@event.listens_for(ReadSession.sync_session_class, "after_commit")
def _after_commit(session: Any) -> None:
    if session.get_nested_transaction() is None:
        session.info[_COMMITTED] = session.get_transaction()
        note_commit(is_over=True)


follow_changes(ReadSession.sync_session_class)
{% endblock %}
