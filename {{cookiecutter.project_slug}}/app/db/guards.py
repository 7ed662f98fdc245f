"""Guards for reading: what would be slow, or not true, raises instead."""

from sqlalchemy import Connection, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction

from app.db.errors import DatabaseError

ENDED = "has ended"
ONE_STATEMENT = "one statement only"


class SnapshotNeededError(DatabaseError):
    """A second statement, on a session that has no snapshot to read it from."""


class LazyLoadError(DatabaseError):
    """A relationship that nobody loaded was touched: a statement for each object."""


@event.listens_for(Session, "after_begin")
def _after_begin(
    session: Session, _transaction: SessionTransaction, connection: Connection
) -> None:
    # Another task was about to take it, so that the session's end did not see it.
    if session.info.get(ENDED):
        connection.detach()
        connection.close()
        raise InvalidRequestError("the session has ended: it is for one task at a time")


@event.listens_for(Session, "do_orm_execute")
def _do_orm_execute(state: ORMExecuteState) -> None:
    if state.is_select and state.lazy_loaded_from is not None:
        relationship = state.loader_strategy_path and state.loader_strategy_path[-1]
        raise LazyLoadError(f"{relationship} was not loaded: name it in `loads`")
    info = state.session.info
    if info.get(ONE_STATEMENT):
        raise SnapshotNeededError(
            "each statement of a ReadDep session sees another moment: "
            "take SnapshotDep to read with several"
        )
    if ONE_STATEMENT in info:
        info[ONE_STATEMENT] = True
