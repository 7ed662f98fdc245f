"""A guard for reading: what one statement cannot see, a snapshot must (S7)."""

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session

from app.db.errors import DatabaseError

ONE_STATEMENT = "one statement only"


class SnapshotNeededError(DatabaseError):
    """A second statement, on a session that has no snapshot to read it from."""


@event.listens_for(Session, "do_orm_execute")
def _do_orm_execute(state: ORMExecuteState) -> None:
    info = state.session.info
    if info.get(ONE_STATEMENT):
        raise SnapshotNeededError(
            "each statement of a ReadDep session sees another moment: "
            "take SnapshotDep to read with several"
        )
    if ONE_STATEMENT in info:
        info[ONE_STATEMENT] = True
