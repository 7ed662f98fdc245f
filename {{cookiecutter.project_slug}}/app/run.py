{% extends "async.jinja" %}
{% block code %}
"""Run a service in a transaction of its own, apart from the request's session.

They are coroutines: neither waiting for a connection nor waiting to retry holds a
thread, a slot or a connection.
"""

{% if cookiecutter.io == 'async' %}
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
{% else %}
from asyncio import CancelledError
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Event
{% endif %}
from typing import Concatenate, ParamSpec, TypeVar

{% if cookiecutter.io == 'sync' %}
from sqlalchemy import event
{% endif %}
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_before_delay,
    stop_never,
    wait_random_exponential,
)

{% if cookiecutter.io == 'sync' %}
from app.concurrency import run_to_its_end
{% endif %}
from app.db.admission import Admission
from app.db.database import Database
from app.db.errors import FAILED, is_retryable, sqlstate, to_problem
from app.db.session import ReadSession
from app.logs import cause_of, logger
from app.problems import ProblemError
from app.transaction import Transaction, transaction

# Seconds. The first wait is at most that long, the second twice as long, and so on,
# by "full jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
BASE = 0.05
LONGEST = 0.25

P = ParamSpec("P")
T = TypeVar("T")
SessionT = TypeVar("SessionT")

Reading = Callable[Concatenate[ReadSession, P], Awaitable[T]]
Writing = Callable[Concatenate[Transaction, P], Awaitable[T]]


{% endblock %}
{% block verbatim %}
{% if cookiecutter.io == 'async' %}
async def _run(
    admission: Admission,
    context: AbstractAsyncContextManager[SessionT],
    service: Callable[[SessionT], Awaitable[T]],
) -> T:
    async with admission, context as session:
        return await service(session)
{% else %}
async def _run(
    admission: Admission,
    context: AbstractContextManager[SessionT],
    service: Callable[[SessionT], T],
) -> T:
    cancelled = Event()

    def refuse_if_cancelled(_session: object) -> None:
        if cancelled.is_set():
            raise CancelledError

    def work() -> T:
        with context as session:
            target = getattr(session, "session", session)  # of a unit of work
            event.listen(target, "before_commit", refuse_if_cancelled)
            return service(session)

    async with admission:
        # A thread cannot be stopped: it has the slot until it ends.
        return await run_to_its_end(work, on_cancel=cancelled.set)
{% endif %}


async def run_read(
    database: Database, service: Reading[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return `service(session, …)`, with a session for one reading statement.

    Slot and connection are given back before this returns: it is for reading before
    something slow, as verifying a password is.
    """
    return await _run(
        database.read_admission,
        database.read(),
        lambda session: service(session, *args, **kwargs),
    )


async def run_transaction(
    database: Database, service: Writing[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return `service(transaction, …)`, with a transaction of its own.

    When that commits is up to `app/transaction.py`, as for a request.
    Cancelled before its COMMIT has begun, it saves nothing. Raises
    `SecondSessionError` in a request that holds a session.
    """
    return await _run(
        database.write_admission,
        transaction(database),
        lambda session: service(session, *args, **kwargs),
    )


async def run_serializable(
    database: Database, service: Writing[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return `service(transaction, …)`, as if no other transaction ran meanwhile.

    After a serialization conflict, all of it runs again in a new session, until
    DATABASE_RETRY_DEADLINE: so it must do nothing but work with its transaction. It
    is not retried after a COMMIT, whether that succeeded or its outcome is unknown.
    """
    transactions: list[Transaction] = []
    name = getattr(service, "__qualname__", repr(service))

    async def attempt() -> T:
        context = transaction(database, serializable=True)
        return await _run(database.write_admission, context, work)

{% if cookiecutter.io == 'async' %}
    def work(transaction: Transaction) -> Awaitable[T]:
{% else %}
    def work(transaction: Transaction) -> T:
{% endif %}
        transactions.append(transaction)
        return service(transaction, *args, **kwargs)

    def may_retry(error: BaseException) -> bool:
        has_committed = bool(transactions) and transactions[-1].committed
        return is_retryable(error) and not has_committed

    def log(state: RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        logger.info(
            "conflict or lost connection in %s, attempt %d (SQLSTATE %s); retrying",
            name,
            state.attempt_number,
            sqlstate(error) if error else None,
        )

    deadline = database.retry_deadline
    retrying = AsyncRetrying(
        retry=retry_if_exception(may_retry),
        wait=wait_random_exponential(BASE, LONGEST),
        stop=stop_before_delay(deadline) if deadline else stop_never,
        before_sleep=log,
        reraise=True,
    )
    return await retrying(attempt)


async def run_in_background(
    database: Database, service: Writing[P, T], *args: P.args, **kwargs: P.kwargs
) -> None:
    """Run a service after the response.

    `tasks.add_task(run_in_background, database, service, order_id)`. Nobody waits for
    it, so an error is logged. Pass ids rather than objects.
    """
    try:
        await run_transaction(database, service, *args, **kwargs)
    except Exception as error:
        name = getattr(service, "__qualname__", repr(service))
        is_refusal = isinstance(error, ProblemError) and error.status < 500
        is_known = is_refusal or to_problem(error) is not FAILED
        logger.error(
            "background task %s failed: %s",
            name,
            cause_of(error),
            exc_info=None if is_known else error,
        )
{% endblock %}
