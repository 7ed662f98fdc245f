"""Units with a session of their own, apart from the request's (S8, S9, S12).

They are asynchronous in any case: neither waiting for a place nor waiting to try again
holds a thread, a place or a connection.
"""

{% if cookiecutter.io == 'async' %}
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
{% else %}
from asyncio import CancelledError, create_task, wait
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Event
{% endif %}
from typing import Concatenate, ParamSpec, TypeVar

{% if cookiecutter.io == 'sync' %}
from anyio import CancelScope, to_thread
from sqlalchemy import event
from sqlalchemy.orm import Session
{% endif %}
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_before_delay,
    stop_never,
    wait_random_exponential,
)

from app.db.admission import Admission
from app.db.errors import is_retryable
{% if cookiecutter.pattern == 'unit_of_work' %}
from app.db.session import Database, ReadSession
from app.db.unit_of_work import UnitOfWork, open_unit_of_work
{% else %}
from app.db.session import Database, ReadSession, WriteSession
{% endif %}
from app.logs import logger

# Seconds. The first wait is at most that long, the second twice as long, and so on,
# by "full jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
BASE = 0.05
LONGEST = 0.25

P = ParamSpec("P")
T = TypeVar("T")
SessionT = TypeVar("SessionT")

{% if cookiecutter.pattern == 'unit_of_work' %}
Unit = UnitOfWork
_open_unit = open_unit_of_work
{% else %}
Unit = WriteSession
_open_unit = Database.write
{% endif %}
{% if cookiecutter.io == 'async' %}
Reading = Callable[Concatenate[ReadSession, P], Awaitable[T]]
Writing = Callable[Concatenate[Unit, P], Awaitable[T]]


async def _run(
    admission: Admission,
    scope: AbstractAsyncContextManager[SessionT],
    function: Callable[[SessionT], Awaitable[T]],
) -> T:
    async with admission.place(), scope as session:
        return await function(session)
{% else %}
Reading = Callable[Concatenate[ReadSession, P], T]
Writing = Callable[Concatenate[Unit, P], T]


async def _run(
    admission: Admission,
    scope: AbstractContextManager[SessionT],
    function: Callable[[SessionT], T],
) -> T:
    cancelled = Event()

    def refuse_if_cancelled(_session: Session) -> None:
        if cancelled.is_set():
            raise CancelledError

    def work() -> T:
        with scope as unit:
{% endif %}
{% if cookiecutter.io == 'sync' and cookiecutter.pattern == 'unit_of_work' %}
            session = unit.session if isinstance(unit, UnitOfWork) else unit
            event.listen(session, "before_commit", refuse_if_cancelled)
{% endif %}
{% if cookiecutter.io == 'sync' and cookiecutter.pattern == 'repository' %}
            event.listen(unit, "before_commit", refuse_if_cancelled)
{% endif %}
{% if cookiecutter.io == 'sync' %}
            return function(unit)

    async with admission.place():
        working = create_task(to_thread.run_sync(work))
        try:
            await wait({working})
        except CancelledError:
            # A thread cannot be stopped: it has the place until it ends.
            cancelled.set()
            with CancelScope(shield=True):
                await wait({working})
            raise
        return working.result()
{% endif %}


async def read_alone(
    database: Database, function: Reading[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return `function(session, …)`, with a session for one reading statement.

    Place and connection are given back before this returns: it is for reading before
    something slow, as verifying a password is.
    """
    return await _run(
        database.read_admission,
        database.read(),
        lambda session: function(session, *args, **kwargs),
    )


async def write_alone(
    database: Database, function: Writing[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return `function(unit, …)`, which writes, and saves as services do.

    Cancelled before its COMMIT has begun, it saves nothing (S3).
    """
    return await _run(
        database.write_admission,
        _open_unit(database),
        lambda unit: function(unit, *args, **kwargs),
    )


async def serializable(
    database: Database, function: Writing[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return `function(unit, …)`, as if nobody else had been at work meanwhile.

    When others were in the way, all of it runs again in a new session, until
    DATABASE_RETRY_DEADLINE: so it must do nothing but work with its unit. It does not
    run again when something was committed, or nobody knows whether it was.
    """
    units: list[Unit] = []

    async def attempt() -> T:
        scope = _open_unit(database, serializable=True)
        return await _run(database.write_admission, scope, work)

{% if cookiecutter.io == 'async' %}
    def work(unit: Unit) -> Awaitable[T]:
{% else %}
    def work(unit: Unit) -> T:
{% endif %}
        units.append(unit)
        return function(unit, *args, **kwargs)

    def may_run_again(error: BaseException) -> bool:
{% if cookiecutter.pattern == 'unit_of_work' %}
        has_committed = bool(units) and units[-1].session.has_committed
{% else %}
        has_committed = bool(units) and units[-1].has_committed
{% endif %}
        return is_retryable(error) and not has_committed

    def log(state: RetryCallState) -> None:
        logger.info("others were in the way of attempt %d", state.attempt_number)

    deadline = database.retry_deadline
    retrying = AsyncRetrying(
        retry=retry_if_exception(may_run_again),
        wait=wait_random_exponential(BASE, LONGEST),
        stop=stop_before_delay(deadline) if deadline else stop_never,
        before_sleep=log,
        reraise=True,
    )
    return await retrying(attempt)


async def in_background(
    database: Database, function: Writing[P, T], *args: P.args, **kwargs: P.kwargs
) -> None:
    """Run `write_alone` after the answer: `tasks.add_task(in_background, database, …)`.

    Nobody waits for it, so an error is logged. Pass ids rather than objects.
    """
    try:
        await write_alone(database, function, *args, **kwargs)
    except Exception:
        name = getattr(function, "__qualname__", repr(function))
        logger.exception("in the background: %s failed", name)
