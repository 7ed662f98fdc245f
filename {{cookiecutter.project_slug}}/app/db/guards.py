"""Guards that make a mistake loud: a forgotten commit, a read without a snapshot."""

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, UOWTransaction

from app.db.errors import DatabaseError

_CHANGES = "transactions with changes"
_DISCARDED = "changes that nobody decided about were discarded"
ONE_STATEMENT = "one statement only"


class ForgottenCommitError(DatabaseError):
    """A session changed something, and ended with neither commit nor rollback."""


class SnapshotNeededError(DatabaseError):
    """A second statement, on a session that has no snapshot to read it from."""


def _note_change(session: Session) -> None:
    transaction = session.get_nested_transaction() or session.get_transaction()
    session.info.setdefault(_CHANGES, []).append(transaction)


@event.listens_for(Session, "after_flush")
def _after_flush(session: Session, _context: UOWTransaction) -> None:
    _note_change(session)


@event.listens_for(Session, "do_orm_execute")
def _do_orm_execute(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        _note_change(state.session)
    if ONE_STATEMENT in state.session.info:
        if state.session.info[ONE_STATEMENT]:
            raise SnapshotNeededError(
                "each statement of a ReadDep session sees another moment: "
                "take SnapshotDep to read with several"
            )
        state.session.info[ONE_STATEMENT] = True


@event.listens_for(Session, "after_soft_rollback")
def _after_soft_rollback(session: Session, ended: SessionTransaction) -> None:
    # A savepoint takes back only what was changed inside it.
    def is_kept(transaction: SessionTransaction | None) -> bool:
        while transaction is not None and transaction is not ended:
            transaction = transaction.parent
        return transaction is None

    changes = session.info.get(_CHANGES, [])
    changes[:] = [change for change in changes if ended.parent and is_kept(change)]


@event.listens_for(Session, "after_commit")
def _after_commit(session: Session) -> None:
    if not session.in_nested_transaction():
        session.info.pop(_CHANGES, None)


def has_unsaved_changes(session: Session) -> bool:
    """Whether the ORM changed something that is neither saved nor rolled back."""
    return bool(
        session.info.get(_CHANGES)
        or session.new
        or session.deleted
        or any(session.is_modified(changed) for changed in session.dirty)
    )


def note_discarded_changes(session: Session, *, discarded: bool) -> None:
    """Remember whether a unit was left without a decision about its changes."""
    session.info[_DISCARDED] = discarded


def refuse_forgotten_commit(session: Session) -> None:
    """Raise `ForgottenCommitError` if the session ends undecided (S4)."""
    if session.info.get(_DISCARDED) or has_unsaved_changes(session):
        raise ForgottenCommitError(
            "changes were made, but neither commit() nor rollback() was called"
        )
