"""Small, realistic breaks of a rendered project: its own tests catch every one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.postgres import Server
from tests.service import environment_with
from tests.template import PAIRS, Answers, Bakery, name_of

pytestmark = pytest.mark.slow

AUTO, MANUAL_UNIT, SYNC_MANUAL_UNIT, SYNC_AUTO_UNIT, SYNC_MANUAL, SYNC = PAIRS


class Mutant(NamedTuple):
    """What to replace where, in which variant, and the tests of the broken rule."""

    name: str
    variant: Answers
    file: str
    old: str
    new: str
    tests: str


COMMIT = "tests/session/test_commit.py"
CHANGES = "tests/session/test_changes.py tests/session/test_commit.py"
UNITS = "tests/session/test_units.py"
TIMEOUTS = "tests/session/test_timeouts.py"
STREAMS = "tests/session/test_streams.py"
ADMISSION = "tests/session/test_admission.py"
ENGINE = "tests/session/test_engine.py"
ERRORS = "tests/session/test_errors.py"
READING = "tests/session/test_reading.py"
LEAKS = "tests/session/test_leaks.py"
CANCELLING = "tests/session/test_cancelling.py"

SCOPE = """\
            yield session
            await session.commit()
"""
FINALLY = """\
            try:
                yield session
            finally:
                await session.commit()
"""
ERROR_ANSWER = """\
        if is_error_answer(request):
            await session.rollback()
"""
LEAVING = """\
        if exc_type is None:
            self.commit()
        else:
            self.rollback()
"""
FLUSH = """\
    _note_change(session)


@event.listens_for(Session, "do_orm_execute")
"""
SAME_SESSION = """\
    async with _open_unit(database, serializable=True) as unit:

        async def again() -> T:
            return await work(unit)

        return await retrying(again)
"""
HOLDING_A_PLACE = """\
    async with database.write_admission.place():
        return await retrying(attempt)
"""
SAVEPOINT = """\
            async with session.begin_nested():
                price ="""
CORE = """\
            await connection.commit()
"""

MUTANTS = [
    # S1, S3: when is it saved?
    Mutant(
        "the session ends after the answer",
        AUTO,
        "app/dependencies.py",
        'scope="function"',
        'scope="request"',
        COMMIT,
    ),
    Mutant("commit in finally", AUTO, "app/db/session.py", SCOPE, FINALLY, COMMIT),
    Mutant(
        "no commit at all",
        AUTO,
        "app/db/session.py",
        SCOPE,
        "            yield session\n",
        COMMIT,
    ),
    Mutant(
        "an error answer is saved",
        AUTO,
        "app/dependencies.py",
        ERROR_ANSWER,
        "",
        COMMIT,
    ),
    Mutant(
        "the status is not shown to the session",
        AUTO,
        "app/routing.py",
        "= response.status_code",
        "= 200",
        COMMIT,
    ),
    Mutant(
        "a unit that fails is committed",
        SYNC_AUTO_UNIT,
        "app/transaction.py",
        LEAVING,
        "        self.commit()\n",
        "tests/session/test_unit_of_work.py",
    ),
    Mutant(
        "leaving a unit discards nothing",
        MANUAL_UNIT,
        "app/transaction.py",
        "        await self.rollback()\n\n    async def add",
        "        pass\n\n    async def add",
        "tests/session/test_unit_of_work.py",
    ),
    Mutant(
        "a rollback expires what was loaded",
        SYNC,
        "app/transaction.py",
        "        self.session.expunge_all()\n",
        "",
        "tests/session/test_unit_of_work.py",
    ),
    Mutant(
        "what was committed is read again",
        AUTO,
        "app/db/session.py",
        '"expire_on_commit": False',
        '"expire_on_commit": True',
        COMMIT,
    ),
    # S2: one session at a time
    Mutant(
        "two kinds of session in one endpoint",
        AUTO,
        "app/orders/router.py",
        "user: SnapshotUserDep,\n    db: SnapshotDep,\n    paging",
        "user: WriteUserDep,\n    db: SnapshotDep,\n    paging",
        "tests/session/test_dependencies.py",
    ),
    # S4: a forgotten commit
    Mutant(
        "a forgotten commit is silent",
        SYNC_MANUAL_UNIT,
        "app/db/changes.py",
        "if session.info.get(_DISCARDED) or has_unsaved_changes(session):",
        "if False:",
        CHANGES,
    ),
    Mutant(
        "flushed changes are not noticed",
        SYNC_MANUAL,
        "app/db/changes.py",
        FLUSH,
        FLUSH.replace("_note_change(session)", "pass"),
        CHANGES,
    ),
    Mutant(
        "bulk changes are not noticed",
        SYNC_MANUAL,
        "app/db/changes.py",
        "state.is_insert or state.is_update or state.is_delete or ",
        "",
        CHANGES,
    ),
    # S5, S6: nothing leaks
    Mutant(
        "a closed session opens again",
        AUTO,
        "app/db/session.py",
        '"close_resets_only": False',
        '"close_resets_only": True',
        f"{LEAKS} {UNITS}",
    ),
    Mutant(
        "nobody hears of a connection held for long",
        SYNC,
        "app/db/pool.py",
        "if held > limit:",
        "if False:",
        LEAKS,
    ),
    Mutant(
        "the engines outlive the app",
        AUTO,
        "app/main.py",
        "await database.dispose()",
        "pass",
        LEAKS,
    ),
    Mutant(
        "a session that has ended takes a connection",
        AUTO,
        "app/db/guards.py",
        "if session.info.get(ENDED):",
        "if False:",
        LEAKS,
    ),
    Mutant(
        "a connection that cannot roll back is kept",
        SYNC,
        "app/db/transaction_errors.py",
        ' or ending.get(connection) == "ROLLBACK"',
        "",
        LEAKS,
    ),
    Mutant(
        "what was cancelled keeps SQLite's lock",
        AUTO,
        "app/db/sqlite.py",
        "await sqlite.rollback()",
        "pass",
        LEAKS,
    ),
    Mutant(
        "a cancelled unit saves",
        SYNC_MANUAL,
        "app/run.py",
        "if cancelled.is_set():",
        "if False:",
        CANCELLING,
    ),
    Mutant(
        "a cancelled unit gives its place back too early",
        SYNC_AUTO_UNIT,
        "app/run.py",
        "                await wait({working})\n            raise\n",
        "                raise\n",
        CANCELLING,
    ),
    # S7: read-only
    Mutant(
        "reading may write on PostgreSQL",
        AUTO,
        "app/db/engine.py",
        '["default_transaction_read_only"] = "on"',
        '["default_transaction_read_only"] = "off"',
        READING,
    ),
    Mutant(
        "reading may write on SQLite",
        SYNC,
        "app/db/sqlite.py",
        "PRAGMA query_only = ON",
        "PRAGMA query_only = OFF",
        READING,
    ),
    Mutant(
        "several statements without a snapshot",
        MANUAL_UNIT,
        "app/db/guards.py",
        "if info.get(ONE_STATEMENT):",
        "if False:",
        READING,
    ),
    Mutant(
        "a snapshot that moves",
        SYNC_MANUAL,
        "app/db/session.py",
        "REPEATABLE READ",
        "READ COMMITTED",
        READING,
    ),
    # S8, S9: serializable, and again
    Mutant(
        "a serializable unit is not",
        AUTO,
        "app/db/session.py",
        '{"isolation_level": "SERIALIZABLE"}',
        "{}",
        UNITS,
    ),
    Mutant(
        "again in the failed transaction",
        AUTO,
        "app/run.py",
        "    return await retrying(attempt)\n",
        SAME_SESSION,
        UNITS,
    ),
    Mutant(
        "a place is held while it waits to run again",
        AUTO,
        "app/run.py",
        "    return await retrying(attempt)\n",
        HOLDING_A_PLACE,
        UNITS,
    ),
    Mutant(
        "again after a commit",
        MANUAL_UNIT,
        "app/run.py",
        "is_retryable(error) and not has_committed",
        "is_retryable(error)",
        UNITS,
    ),
    Mutant(
        "never again",
        SYNC,
        "app/run.py",
        "is_retryable(error) and not has_committed",
        "False",
        UNITS,
    ),
    Mutant(
        "an unknown outcome is told as a refusal",
        AUTO,
        "app/db/transaction_errors.py",
        'raise CommitOutcomeUnknownError("connection lost in COMMIT")',
        "return",
        ERRORS,
    ),
    # S10: timeouts
    Mutant(
        "SET instead of SET LOCAL",
        AUTO,
        "app/db/timeouts.py",
        "*item, True",
        "*item, False",
        TIMEOUTS,
    ),
    Mutant(
        "no statement timeout",
        SYNC,
        "app/db/engine.py",
        "statement=settings.database_statement_timeout",
        "statement=0",
        ENGINE,
    ),
    Mutant(
        "SQLite's clock stands still",
        SYNC_MANUAL,
        "app/db/sqlite.py",
        "return time.monotonic() > deadline",
        "return False",
        TIMEOUTS,
    ),
    Mutant(
        "SQLite keeps a transaction's own lock timeout",
        AUTO,
        "app/db/sqlite.py",
        '_busy_timeout(defaults["lock_timeout"]))\n\n    @event',
        "_busy_timeout(lock_timeout))\n\n    @event",
        TIMEOUTS,
    ),
    # S11: savepoints
    Mutant(
        "get_or_create without a savepoint",
        AUTO,
        "app/db/repository.py",
        "async with self.session.begin_nested():",
        "if True:",
        "tests/session/test_repository.py",
    ),
    Mutant(
        "an order's lines without savepoints",
        AUTO,
        "app/orders/service.py",
        SAVEPOINT,
        SAVEPOINT.replace("async with session.begin_nested()", "if True"),
        "tests/test_orders.py",
    ),
    # S12: outside requests
    Mutant(
        "what fails in the background is not logged",
        AUTO,
        "app/run.py",
        'logger.exception("in the background: %s failed", name)',
        "return",
        UNITS,
    ),
    Mutant(
        "a Core connection saves nothing",
        AUTO,
        "app/db/session.py",
        CORE,
        "            pass\n",
        "tests/session/test_outside.py",
    ),
    # S13: streams
    Mutant(
        "a stream's session ends before it",
        AUTO,
        "app/dependencies.py",
        'scope="request"',
        'scope="function"',
        STREAMS,
    ),
    Mutant(
        "streams take all places",
        SYNC,
        "app/db/session.py",
        "max(places // 2, 1)",
        "places",
        STREAMS,
    ),
    Mutant(
        "a stream may take for ever",
        AUTO,
        "app/streaming.py",
        "timeout=self.timeout or None",
        "timeout=None",
        STREAMS,
    ),
    # S14: the pool
    Mutant(
        "dead connections are not noticed",
        SYNC_MANUAL,
        "app/db/pool.py",
        "_is_suspect(connection) or ",
        "",
        ENGINE,
    ),
    Mutant(
        "connections are never replaced",
        AUTO,
        "app/db/engine.py",
        "settings.database_pool_recycle or -1",
        "-1",
        ENGINE,
    ),
    # S15: exhaustion
    Mutant(
        "no admission",
        SYNC,
        "app/db/places.py",
        "    async with get_database(request).read_admission.place():\n        yield",
        "    yield",
        ADMISSION,
    ),
    Mutant(
        "a place is never given back",
        MANUAL_UNIT,
        "app/db/admission.py",
        "self._places.release_on_behalf_of(holder)",
        "pass",
        ADMISSION,
    ),
    Mutant(
        "connecting may take as long as it likes",
        AUTO,
        "app/db/admission.py",
        "connect_timeout.set(patience and max(patience - waited, 0.001))",
        "connect_timeout.set(None)",
        ADMISSION,
    ),
    Mutant(
        "a place is held while a password is hashed",
        AUTO,
        "app/users/router.py",
        "    password_hash: PasswordHashDep,\n    db: WriteDep,\n",
        "    db: WriteDep,\n    password_hash: PasswordHashDep,\n",
        "tests/test_auth.py",
    ),
    # S16: gauges
    Mutant(
        "the gauges of one pool for both",
        SYNC,
        "app/db/session.py",
        "_gauges(self.write_engine.pool, self.write_admission.waiting)",
        "_gauges(self.read_engine.pool, self.read_admission.waiting)",
        ADMISSION,
    ),
    # S17, S18: errors
    Mutant(
        "a unique violation is a missing reference",
        AUTO,
        "app/db/errors.py",
        '"23505": EXISTS',
        '"23505": REFERENCED',
        ERRORS,
    ),
    Mutant(
        "a serialization failure is a timeout",
        SYNC,
        "app/db/errors.py",
        '"40001": BUSY',
        '"40001": TOO_SLOW',
        ERRORS,
    ),
    Mutant(
        "a timeout is somebody else's lock",
        SYNC_MANUAL_UNIT,
        "app/db/errors.py",
        '"57014": TOO_SLOW',
        '"57014": BUSY',
        ERRORS,
    ),
    Mutant(
        "nobody is told when to try again",
        AUTO,
        "app/problems.py",
        '{"Retry-After": str(outcome.retry_after)} if outcome.retry_after else {}',
        "{}",
        ADMISSION,
    ),
    Mutant(
        "the client reads SQL",
        SYNC_MANUAL,
        "app/problems.py",
        "outcome.status, outcome.detail, type",
        "outcome.status, str(error), type",
        ERRORS,
    ),
    # S22: nobody gets in
    Mutant(
        "another's orders are shown",
        AUTO,
        "app/orders/service.py",
        " or order.user_id != user_id",
        "",
        "tests/test_orders.py",
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_its_own_tests_catch(
    mutant: Mutant, bake: Bakery, server: Server, tmp_path: Path
) -> None:
    rendering = bake(**mutant.variant, example=True)
    project = shutil.copytree(rendering, tmp_path / name_of(mutant.variant))
    path = project / mutant.file
    source = path.read_text(encoding="utf-8")
    assert mutant.old in source, "there is no such thing to break any more"
    path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
    # The tests of its rule first; all of them only if it survives those.
    exit_code = run_tests(project, server, *mutant.tests.split())
    if exit_code == pytest.ExitCode.OK:
        exit_code = run_tests(project, server)
    assert exit_code == pytest.ExitCode.TESTS_FAILED


def run_tests(project: Path, server: Server, *tests: str) -> int:
    """Run tests of a project until one fails; return pytest's exit code."""
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=project,
        env=environment_with(TEST_DATABASE_URL=server.url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    print(ended.stdout[-2000:])
    return ended.returncode
