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
from tests.template import OPPOSITE, PAIRS, Answers, Bakery, name_of

pytestmark = pytest.mark.slow

AUTO, MANUAL_UNIT, SYNC_MANUAL_UNIT, SYNC_AUTO_UNIT, SYNC_MANUAL = PAIRS
SYNC = OPPOSITE


class Mutant(NamedTuple):
    """What to replace where, in which variant, and the tests of the broken rule."""

    name: str
    variant: Answers
    files: str
    old: str
    new: str
    tests: str
    exit_code: int = pytest.ExitCode.TESTS_FAILED


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
ASYNCIO = "tests/session/test_asyncio.py"
THREADS = "tests/session/test_threads.py"
CANCELLING = "tests/session/test_cancelling.py"
DEPENDENCIES = "tests/session/test_dependencies.py"
OUTSIDE = "tests/session/test_outside.py"
UNIT_OF_WORK = "tests/session/test_unit_of_work.py"
LOST_UPDATES = "tests/session/test_lost_updates.py"
OBJECTS = "tests/session/test_objects_across_transactions.py"
AFTER_COMMIT = "tests/session/test_errors_after_commit.py"
ONE_SESSION = "tests/session/test_one_session.py"
MODELS = "tests/session/test_models.py tests/test_models.py"
MIGRATIONS = "tests/test_migrations.py"

ENDPOINT = """\
        yield session  # an exception, which the endpoint raises here, rolls back
        if status_of(request) < 400:
            await session.commit()
"""
FINALLY = """\
        try:
            yield session
        finally:
            if getattr(request.state, "status_code", 200) < 400:
                await session.commit()
        if status_of(request) < 400:
            pass
"""
BLOCK = """\
        yield session
        await session.commit()
"""
BLOCK_FINALLY = """\
        try:
            yield session
        finally:
            await session.commit()
"""
LEAVING = """\
        if exc_type is None:
            self.commit()
        else:
            self.rollback()
"""
SAME_SESSION = """\
    context = transaction(database, serializable=True)
    async with database.write_admission, context as first:

        async def again() -> T:
            return await work(first)

        return await retrying(again)
"""
HOLDING_A_SLOT = """\
    async with database.write_admission:
        return await retrying(attempt)
"""
CLOSE = """\
            await super().close()
        except DBAPIError as error:
            _log_loss(error)
"""
ROLLBACK = CLOSE.replace("close", "rollback")
REFUSE_IN_ADD = """\
        self.session.refuse_detached(instance, may_be_new=True)
        self.session.add(instance)
"""
REFUSE_IN_UPDATE = """\
        self.session.refuse_detached(instance)
        for name"""
REFUSE_IN_DELETE = """\
        self.session.refuse_detached(instance)
        await self.session.delete(instance)
"""

MUTANTS = [
    # S1, S3: when is it saved?
    Mutant(
        "the session ends after the answer",
        AUTO,
        "app/transaction.py app/dependencies.py",  # which refuses another scope
        '"function"',
        '"request"',
        COMMIT,
    ),
    Mutant("commit in finally", AUTO, "app/transaction.py", ENDPOINT, FINALLY, COMMIT),
    Mutant(
        "commit in finally, outside requests",
        AUTO,
        "app/transaction.py",
        BLOCK,
        BLOCK_FINALLY,
        OUTSIDE,
    ),
    Mutant(
        "no commit at all",
        AUTO,
        "app/transaction.py",
        ENDPOINT,
        ENDPOINT.replace("await session.commit()", "pass"),
        COMMIT,
    ),
    Mutant(
        "no commit at all, outside requests",
        AUTO,
        "app/transaction.py",
        BLOCK,
        "        yield session\n",
        OUTSIDE,
    ),
    Mutant(
        "an error response is saved",
        AUTO,
        "app/transaction.py",
        "if status_of(request) < 400:",
        "if True:",
        COMMIT,
    ),
    Mutant(
        "an error response is told as a forgotten commit",
        SYNC_MANUAL,
        "app/transaction.py",
        "if status_of(request) >= 400:",
        "if False:",
        COMMIT,
    ),
    Mutant(
        "an error response of a unit is told as a forgotten commit",
        MANUAL_UNIT,
        "app/transaction.py",
        "if status_of(request) >= 400:",
        "if False:",
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
        UNIT_OF_WORK,
    ),
    Mutant(
        "leaving a unit discards nothing",
        MANUAL_UNIT,
        "app/transaction.py",
        "        await self.rollback()\n\n    async def add",
        "        pass\n\n    async def add",
        UNIT_OF_WORK,
    ),
    Mutant(
        "a rollback expires what was loaded",
        SYNC,
        "app/db/session.py",
        "        restore(held)\n",
        "        pass\n",
        UNIT_OF_WORK,
    ),
    Mutant(
        "what was committed is read again",
        AUTO,
        "app/db/database.py",
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
        DEPENDENCIES,
        # Without the app no test begins.
        pytest.ExitCode.USAGE_ERROR,
    ),
    Mutant(
        "two kinds of session are not refused",
        AUTO,
        "app/dependencies.py",
        "if len(kinds) > 1:",
        "if False:",
        DEPENDENCIES,
    ),
    Mutant(
        "what dependencies take is not looked at",
        SYNC_MANUAL_UNIT,
        "app/dependencies.py",
        "yield from _walk(each)",
        "yield each",
        DEPENDENCIES,
    ),
    Mutant(
        "another scope is not refused",
        MANUAL_UNIT,
        "app/dependencies.py",
        "if each.scope != scope:",
        "if False:",
        DEPENDENCIES,
    ),
    Mutant(
        "a request's session is not refused in a WebSocket",
        SYNC_AUTO_UNIT,
        "app/dependencies.py",
        "if kinds and isinstance(original, WebSocketRoute):",
        "if False:",
        DEPENDENCIES,
    ),
    Mutant(
        "a router that shows no status is not refused",
        MANUAL_UNIT,
        "app/dependencies.py",
        "if kinds and not isinstance(original, Route):",
        "if False:",
        DEPENDENCIES,
    ),
    Mutant(
        "a session is not refused where it blocks the event loop",
        SYNC_MANUAL,
        "app/dependencies.py",
        "if takes_session and inspect.iscoroutinefunction(function):",
        "if False:",
        THREADS,
    ),
    Mutant(
        "routes that were added later are not looked at",
        AUTO,
        "app/main.py",
        "check_routes(app)  # those",
        "pass  # those",
        DEPENDENCIES,
    ),
    Mutant(
        "a second session in an endpoint is not refused",
        AUTO,
        "app/db/session.py",
        "if held is not None and _OPEN in held.info and is_in_endpoint():",
        "if False:",
        ONE_SESSION,
    ),
    Mutant(
        "a second session in an endpoint's thread is not refused",
        SYNC_MANUAL,
        "app/db/session.py",
        "if held is not None and _OPEN in held.info and is_in_endpoint():",
        "if False:",
        ONE_SESSION,
    ),
    Mutant(
        "a session after another is refused",
        SYNC_AUTO_UNIT,
        "app/db/session.py",
        "_OPEN in held.info and ",
        "",
        ONE_SESSION,
    ),
    Mutant(
        "a second session is refused after the endpoint",
        MANUAL_UNIT,
        "app/db/session.py",
        " and is_in_endpoint():",
        ":",
        ONE_SESSION,
    ),
    # S4: a forgotten commit
    Mutant(
        "a forgotten commit is silent",
        SYNC_MANUAL_UNIT,
        "app/db/session.py",
        "if is_forgotten:",
        "if False:",
        CHANGES,
    ),
    Mutant(
        "what a unit leaves undecided is forgotten",
        MANUAL_UNIT,
        "app/transaction.py",
        "self.session.left_undecided = True",
        "pass",
        CHANGES,
    ),
    Mutant(
        "what is changed outside of a unit's block is not noticed",
        SYNC_AUTO_UNIT,
        "app/db/session.py",
        "(self.left_undecided or self.has_changes)",
        "self.left_undecided",
        CHANGES,
    ),
    Mutant(
        "changes that were sent are not noticed",
        SYNC_MANUAL,
        "app/db/changes.py",
        "if session is not None and session.in_transaction():",
        "if False:",
        CHANGES,
    ),
    Mutant(
        "a statement that changed no row is a change",
        SYNC_MANUAL,
        "app/db/changes.py",
        "cursor.rowcount != 0 or ",
        "True or ",
        CHANGES,
    ),
    Mutant(
        "what a CTE changes is not noticed",
        SYNC_MANUAL,
        "app/db/changes.py",
        "|with\\b.*[()]",
        "|with out[()]",
        CHANGES,
    ),
    Mutant(
        "a change behind a comment is not noticed",
        MANUAL_UNIT,
        "app/db/changes.py",
        '_WRITES = re.compile(\n    rf"{_SPACE}',
        '_WRITES = re.compile(\n    rf"',
        CHANGES,
    ),
    # S3: no change vanishes, no update is lost
    Mutant(
        "what is locked shows what was read before",
        AUTO,
        "app/db/session.py",
        'getattr(statement, "_for_update_arg", None) is not None',
        "False",
        LOST_UPDATES,
    ),
    Mutant(
        "a bulk update computes from what was read before",
        SYNC_MANUAL,
        "app/db/session.py",
        "return update_and_reload(state)",
        "return None",
        LOST_UPDATES,
    ),
    Mutant(
        "a bulk update leaves what was read before",
        MANUAL_UNIT,
        "app/db/changes.py",
        "        _expire_columns(state.session, known)\n",
        "",
        LOST_UPDATES,
    ),
    Mutant(
        "what RETURNING gives is not read into known objects",
        SYNC_AUTO_UNIT,
        "app/db/session.py",
        "state.update_execution_options(populate_existing=True)  # for RETURNING",
        "pass",
        LOST_UPDATES,
    ),
    Mutant(
        "a repository updates what is not its session's",
        AUTO,
        "app/db/repository.py",
        REFUSE_IN_UPDATE,
        "        for name",
        OBJECTS,
    ),
    Mutant(
        "a repository adds what is not its session's",
        SYNC_MANUAL,
        "app/db/repository.py",
        REFUSE_IN_ADD,
        "        self.session.add(instance)\n",
        OBJECTS,
    ),
    Mutant(
        "a repository deletes what is not its session's",
        MANUAL_UNIT,
        "app/db/repository.py",
        REFUSE_IN_DELETE,
        "        await self.session.delete(instance)\n",
        OBJECTS,
    ),
    Mutant(
        "a unit adds what is not its session's",
        MANUAL_UNIT,
        "app/transaction.py",
        REFUSE_IN_ADD,
        "        self.session.add(instance)\n",
        OBJECTS,
    ),
    Mutant(
        "a unit deletes what is not its session's",
        SYNC_AUTO_UNIT,
        "app/transaction.py",
        REFUSE_IN_DELETE.replace("await ", ""),
        "        self.session.delete(instance)\n",
        OBJECTS,
    ),
    Mutant(
        "a rollback that discards nothing detaches",
        MANUAL_UNIT,
        "app/db/session.py",
        "if instance in self and is_discarding:",
        "if instance in self:",
        OBJECTS,
    ),
    Mutant(
        "a rollback detaches nothing that it discarded",
        SYNC,
        "app/db/session.py",
        "if instance in self and is_discarding:",
        "if False:",
        OBJECTS,
    ),
    Mutant(
        "what a failed savepoint has changed is not read again",
        AUTO,
        "app/db/changes.py",
        "            _read_again(session, held)\n",
        "            pass\n",
        OBJECTS,
    ),
    Mutant(
        "what a failed savepoint has changed in bulk is not read again",
        SYNC_MANUAL_UNIT,
        "app/db/changes.py",
        "    _expire_columns(session, in_bulk)\n",
        "",
        OBJECTS,
    ),
    # S5, S6: nothing leaks
    Mutant(
        "a closed session opens again",
        AUTO,
        "app/db/database.py",
        '"close_resets_only": False',
        '"close_resets_only": True',
        f"{LEAKS} {UNITS}",
    ),
    Mutant(
        "nobody hears of a connection held for long",
        SYNC,
        "app/db/pool.py",
        "if held > longest:",
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
        "app/db/session.py",
        "if _OPEN not in session.info:",
        "if False:",
        ASYNCIO,
    ),
    Mutant(
        "a connection that cannot roll back is kept",
        SYNC,
        "app/db/transaction_errors.py",
        ' or transaction.ending == "ROLLBACK"',
        "",
        LEAKS,
    ),
    Mutant(
        "a connection that only reads and cannot roll back is kept",
        AUTO,
        "app/db/transaction_errors.py",
        " or context.execution_context is None",
        "",
        LEAKS,
    ),
    Mutant(
        "connections to a standby stay in the pool",
        SYNC,
        "app/db/engine.py",
        "if not read_only:",
        "if False:",
        ENGINE,
    ),
    Mutant(
        "what was cancelled keeps SQLite's lock",
        AUTO,
        "app/db/driver.py",
        "await sqlite.rollback()",
        "pass",
        ASYNCIO,
    ),
    Mutant(
        "a cancelled unit saves",
        SYNC_MANUAL,
        "app/run.py",
        "if cancelled.is_set():",
        "if False:",
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
        "app/db/session.py",
        "if info.get(WAS_RUN):",
        "if False:",
        READING,
    ),
    Mutant(
        "a snapshot that moves",
        SYNC_MANUAL,
        "app/db/database.py",
        'REPEATABLE READ"',
        'READ COMMITTED"',
        READING,
    ),
    # S8, S9: serializable, and again
    Mutant(
        "a serializable unit is not",
        AUTO,
        "app/db/database.py",
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
        "a slot is held while it waits to run again",
        AUTO,
        "app/run.py",
        "    return await retrying(attempt)\n",
        HOLDING_A_SLOT,
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
        "app/db/driver.py",
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
    # S12: outside requests
    Mutant(
        "what fails in the background is not logged",
        AUTO,
        "app/run.py",
        "        logger.error(\n",
        "        (lambda *_, **__: None)(\n",
        UNITS,
    ),
    # S13: streams
    Mutant(
        "a stream's session ends before it",
        AUTO,
        "app/dependencies.py",
        '"request"',
        '"function"',
        STREAMS,
    ),
    Mutant(
        "streams take all places",
        SYNC,
        "app/db/database.py",
        "max(slots // 2, 1)",
        "slots",
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
        " or is_closed(connection)",
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
        "app/dependencies.py",
        "async with database.read_admission, ",
        "async with ",
        ADMISSION,
    ),
    Mutant(
        "a slot is never given back",
        MANUAL_UNIT,
        "app/db/admission.py",
        "self._slots.release()",
        "pass",
        ADMISSION,
    ),
    Mutant(
        "connecting may take as long as it likes",
        AUTO,
        "app/db/admission.py",
        "connect_timeout.set(left)",
        "connect_timeout.set(None)",
        ADMISSION,
    ),
    Mutant(
        "a slot is held while a password is hashed",
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
        "app/db/database.py",
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
        '{"Retry-After": str(problem.retry_after)} if problem.retry_after else {}',
        "{}",
        ADMISSION,
    ),
    Mutant(
        "the client reads SQL",
        SYNC_MANUAL,
        "app/problems.py",
        'ProblemResponse.of(request.scope["path"], problem)',
        'ProblemResponse(request.scope["path"], problem.status, str(error), '
        "type=problem.type)",
        ERRORS,
    ),
    Mutant(
        "what fails after the commit is told as not saved",
        AUTO,
        "app/problems.py",
        " and has_committed()",
        " and False",
        AFTER_COMMIT,
    ),
    Mutant(
        "the request does not hear of its commit",
        SYNC_MANUAL_UNIT,
        "app/db/session.py",
        "        note_commit(is_over=True)\n",
        "",
        AFTER_COMMIT,
    ),
    Mutant(
        "a snapshot whose connection dies fails on its return",
        AUTO,
        "app/db/session.py",
        CLOSE,
        CLOSE.replace("_log_loss(error)", "raise error"),
        AFTER_COMMIT,
    ),
    Mutant(
        "a transaction whose connection dies fails on its return",
        SYNC_MANUAL,
        "app/db/session.py",
        ROLLBACK.replace("await ", ""),
        ROLLBACK.replace("await ", "").replace("_log_loss(error)", "raise error"),
        AFTER_COMMIT,
    ),
    # S22: nobody gets in
    Mutant(
        "another's orders are shown",
        AUTO,
        "app/orders/queries.py",
        " or order.user_id != user_id",
        "",
        "tests/test_orders.py",
    ),
    Mutant(
        "a failed savepoint drops the relationships that were loaded",
        AUTO,
        "app/db/changes.py",
        "[orm.selectinload(each.class_attribute) for each in relationships]",
        "[]",
        "tests/session/test_savepoints.py",
    ),
    Mutant(
        "who is cancelled after the commit gets another error",
        AUTO,
        "app/db/session.py",
        "if transaction in {None, self.info.get(_COMMITTED)}:",
        "if transaction is None:",
        ASYNCIO,
    ),
    Mutant(
        "what a driver itself raises is a bug",
        SYNC,
        "app/problems.py",
        "    **dict.fromkeys(DRIVER_ERRORS, _on_database_error),\n",
        "",
        ERRORS,
    ),
    Mutant(
        "each error of a body comes as often as the body is read",
        SYNC_MANUAL,
        "app/problems.py",
        "if shown not in errors:",
        "if True:",
        "tests/test_problems.py",
    ),
    Mutant(
        "a list is always ordered by id",
        AUTO,
        "app/db/repository.py",
        "order_by(*order_by, ",
        "order_by(",
        "tests/session/test_repository.py",
    ),
    # S24: the log
    Mutant(
        "a full pool says so again and again",
        AUTO,
        "app/db/admission.py",
        "if not self._is_exhausted:",
        "if True:",
        ADMISSION,
    ),
    Mutant(
        "readiness says so again and again",
        SYNC,
        "app/health.py",
        'if reason != getattr(app.state, "not_ready", None):',
        "if True:",
        "tests/test_health.py",
    ),
    Mutant(
        "a missing migration is a bug",
        SYNC_MANUAL,
        "app/problems.py",
        "    if is_schema_missing(error) and ",
        "    if False and ",
        ERRORS,
    ),
    Mutant(
        "a bug is a missing migration",
        AUTO,
        "app/problems.py",
        "(hint := await _missing_migrations(request.app))",
        '(hint := "migrate")',
        ERRORS,
    ),
    Mutant(
        "a known cause has the driver's traceback",
        SYNC,
        "app/problems.py",
        "exc_info=error if problem is FAILED else None,",
        "exc_info=error,",
        ERRORS,
    ),
    Mutant(
        "the log shows what clients write into paths",
        MANUAL_UNIT,
        "app/context.py",
        'quote(scope["path"], errors="replace")',
        'scope["path"]',
        "tests/test_logs.py",
    ),
    Mutant(
        "uvicorn's lines stay as they are",
        SYNC_AUTO_UNIT,
        "app/logs.py",
        "theirs.handlers.clear()",
        "pass",
        "tests/test_logs.py",
    ),
    # S17, S20, S23: models and migrations
    Mutant(
        "a time without zone is stored",
        AUTO,
        "app/db/tables.py",
        "if value.utcoffset() is None:",
        "if False:",
        MODELS,
    ),
    Mutant(
        "SQLite tells no time zone",
        SYNC,
        "app/db/tables.py",
        "value.replace(tzinfo=UTC)",
        "value",
        MODELS,
    ),
    Mutant(
        "a time is shown in the zone of its sender",
        SYNC_MANUAL_UNIT,
        "app/schemas.py",
        "return time.astimezone(UTC)",
        "return time",
        MODELS,
    ),
    Mutant(
        "a foreign key is no more than an int",
        SYNC_MANUAL_UNIT,
        "app/db/tables.py",
        "column.type = NULLTYPE",
        "pass",
        MODELS,
    ),
    Mutant(
        "SQLite gives ids again",
        AUTO,
        "app/db/tables.py",
        "if parent is metadata:",
        "if False:",
        MODELS,
    ),
    Mutant(
        "a change leaves what the database computes unread",
        SYNC,
        "app/db/tables.py",
        "mapper.eager_defaults = True",
        "pass",
        MODELS,
    ),
    Mutant(
        "a stale version is a bug",
        AUTO,
        "app/db/errors.py",
        "return STALE",
        "return FAILED",
        MODELS,
    ),
    Mutant(
        "SQLite tells columns, not the constraint",
        SYNC_MANUAL,
        "app/db/errors.py",
        "return name or _unique_constraint(columns)",
        "return name or columns",
        MODELS,
    ),
    Mutant(
        "migrations take no turns",
        SYNC,
        "app/db/migrations.py",
        "while not connection.scalar(select(lock(LOCK))):",
        "while False:",
        MIGRATIONS,
    ),
    Mutant(
        "a rebuilt table takes along what refers to it",
        SYNC_MANUAL,
        "app/db/migrations.py",
        "PRAGMA foreign_keys = OFF",
        "PRAGMA foreign_keys = ON",
        MIGRATIONS,
    ),
    Mutant(
        "a rebuilt table gives ids again",
        AUTO,
        "app/db/migrations.py",
        'table.kwargs["sqlite_autoincrement"] = True',
        "pass",
        MIGRATIONS,
    ),
    # Mistakes of an owner, and what a migration or a lost connection makes of sessions
    Mutant(
        "what is changed in a session that only reads is lost silently",
        MANUAL_UNIT,
        "app/db/session.py",
        "            raise ForgottenCommitError(self._forgotten)\n",
        "            return\n",
        CHANGES,
    ),
    Mutant(
        "an error after a lost rollback blames the endpoint",
        SYNC_MANUAL,
        "app/db/session.py",
        "        self.info.pop(CHANGES, None)\n",
        "",
        "tests/session/test_savepoints.py",
    ),
    Mutant(
        "the attribute that has no such name is set",
        AUTO,
        "app/db/repository.py",
        "if not hasattr(self.model, name):",
        "if False:",
        "tests/session/test_repository.py",
    ),
    Mutant(
        "what was set to a SQL expression cannot be read",
        MANUAL_UNIT,
        "app/db/repository.py",
        "            await self.session.refresh(instance, expired)\n",
        "            pass\n",
        "tests/session/test_repository.py",
    ),
    Mutant(
        "a COMMIT that was answered by ROLLBACK is a success",
        AUTO,
        "app/db/driver.py",
        'if tag == "ROLLBACK" and query.startswith("COMMIT"):',
        "if False:",
        "tests/session/test_lost_transactions.py",
    ),
    Mutant(
        "a connection in a failed transaction commits",
        SYNC_MANUAL,
        "app/db/driver.py",
        "if status == TransactionStatus.INERROR:",
        "if False:",
        "tests/session/test_lost_transactions.py",
    ),
    Mutant(
        "a changed column fails those who prepared a statement",
        MANUAL_UNIT,
        "app/db/schema_changes.py",
        "if not is_repeatable or attempt == 2:",
        "if True:",
        "tests/session/test_schema_changes.py",
    ),
    Mutant(
        "statements are prepared inside transactions",
        SYNC_MANUAL_UNIT,
        "app/db/schema_changes.py",
        "5 if driver.autocommit else None",
        "5",
        "tests/session/test_schema_changes.py",
    ),
    Mutant(
        "a changed connection goes back to the pool",
        SYNC,
        "app/db/pool.py",
        "            entry.invalidate(soft=True)\n",
        "            pass\n",
        "tests/session/test_connection_state.py",
    ),
    Mutant(
        "a new connection that is dead too is a bug",
        AUTO,
        "app/db/pool.py",
        'if not entry.info["was used"]:',
        "if False:",
        ENGINE,
    ),
    Mutant(
        "who is cancelled in the COMMIT is told to try again",
        AUTO,
        "app/middleware.py",
        "    if is_committing():",
        "    if False:",
        ASYNCIO,
    ),
    Mutant(
        "who is cancelled does not wait for the thread that commits",
        SYNC,
        "app/concurrency.py",
        "            await wait({working})\n        if not",
        "            pass\n        if not",
        THREADS,
    ),
    Mutant(
        "a later savepoint heals an earlier error",
        SYNC_AUTO_UNIT,
        "app/db/transaction_errors.py",
        " and number <= transaction.failed_after",
        "",
        "tests/session/test_savepoints.py",
    ),
    Mutant(
        "an order does not lock its products",
        AUTO,
        "app/products/repository.py",
        "query.with_for_update()",
        "query",
        "tests/test_orders.py",
    ),
    Mutant(
        "an order locks its products in any order",
        SYNC_MANUAL_UNIT,
        "app/products/repository.py",
        ".order_by(Product.id)",
        "",
        "tests/test_orders.py",
    ),
    Mutant(
        "the list shows what anybody has ordered",
        AUTO,
        "app/orders/repository.py",
        ".join(Order).where(Order.user_id == user_id)",
        ".join(Order)",
        "tests/test_products.py",
    ),
    Mutant(
        "the gauges are no metrics of the app",
        AUTO,
        "app/main.py",
        "        observe(database)\n",
        "",
        "tests/test_health.py",
    ),
    Mutant(
        "a response is not documented",
        SYNC_MANUAL_UNIT,
        "app/products/router.py",
        "response_model=ProductPublic, responses=problem_responses(404)",
        "response_model=ProductPublic, responses=problem_responses()",
        "tests/test_products.py",
    ),
    Mutant(
        "a model has forgotten how long a column is",
        AUTO,
        "app/products/models.py",
        "String(50)",
        "String()",
        MIGRATIONS,
    ),
    Mutant(
        "whom the shutdown cancels hears nothing of trying again",
        SYNC_AUTO_UNIT,
        "app/db/errors.py",
        'The service is shutting down. Try again.", 5',
        'The service is shutting down. Try again."',
        "tests/test_problems.py",
    ),
    Mutant(
        "a locked SQLite is no conflict",
        SYNC_MANUAL,
        "app/db/errors.py",
        '"SQLITE_LOCKED": "40001"',
        '"SQLITE_LOCKED": "55000"',
        ERRORS,
    ),
    Mutant(
        "a pooler gets parameters of the session",
        MANUAL_UNIT,
        "app/db/engine.py",
        "if read_only and not pooled:",
        "if read_only:",
        ENGINE,
    ),
    Mutant(
        "a driver prepares statements behind a pooler",
        SYNC,
        "app/db/driver.py",
        'arguments["prepare_threshold"] = None',
        "pass",
        ENGINE,
    ),
    Mutant(
        "a transaction without a statement cannot be committed",
        SYNC_MANUAL_UNIT,
        "app/db/transaction_errors.py",
        'transaction.has_run, transaction.ending = False, ""',
        'transaction.has_run, transaction.ending = True, ""',
        "tests/session/test_lost_transactions.py",
    ),
    Mutant(
        "a change of the price takes the tags away",
        SYNC_MANUAL,
        "app/products/service.py",
        'if "tags" in changes:',
        "if True:",
        "tests/test_products.py",
    ),
    Mutant(
        "the time in the pool counts as held",
        AUTO,
        "app/db/pool.py",
        'entry.info["since"], entry.info["was used"] = now, True',
        'entry.info["was used"] = True',
        LEAKS,
    ),
    Mutant(
        "what only reads sends its changes",
        SYNC_MANUAL_UNIT,
        "app/db/database.py",
        "autoflush=False",
        "autoflush=True",
        CHANGES,
    ),
    Mutant(
        "what was cancelled goes on in SQLite",
        MANUAL_UNIT,
        "app/db/driver.py",
        'entry.info["deadline"] = 0',
        "pass",
        ASYNCIO,
    ),
    Mutant(
        "what only reads goes to the primary",
        SYNC_MANUAL,
        "app/db/engine.py",
        '"database_replica_url" if replica else "database_url"',
        '"database_url"',
        ENGINE,
    ),
    Mutant(
        "a closed connection is taken for an open one",
        SYNC_AUTO_UNIT,
        "app/db/driver.py",
        "    if connection.closed:\n        return True\n",
        "",
        ENGINE,
    ),
    Mutant(
        "the time of the last change is that of the first",
        SYNC_AUTO_UNIT,
        "app/db/base.py",
        '            "onupdate": statement_time,\n',
        "",
        MODELS,
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_its_own_tests_catch(
    mutant: Mutant, bake: Bakery, server: Server, tmp_path: Path
) -> None:
    rendering = bake(**mutant.variant, example=True)
    project = shutil.copytree(rendering, tmp_path / name_of(mutant.variant))
    for file in mutant.files.split():
        path = project / file
        source = path.read_text(encoding="utf-8")
        assert mutant.old in source, "there is no such thing to break any more"
        path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
    # The tests of its rule first; all of them only if it survives those.
    exit_code = run_tests(project, server, *mutant.tests.split())
    if exit_code == pytest.ExitCode.OK:
        exit_code = run_tests(project, server)
    assert exit_code == mutant.exit_code


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
