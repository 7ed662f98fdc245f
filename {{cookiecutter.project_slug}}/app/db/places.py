"""A request's place in the queue for a connection; asynchronous in any case (S15)."""

{% if cookiecutter.io == 'async' %}
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from fastapi import Request

from app.db.session import Database, ReadSession
{% else %}
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from anyio import to_thread
from fastapi import Request

from app.db.session import Database, ReadSession
{% endif %}

ArgT = TypeVar("ArgT")
T = TypeVar("T")


def get_database(request: Request) -> Database:
    """Return the app's engines and sessions."""
    database: Database = request.app.state.database
    return database


def is_error_answer(request: Request) -> bool:
    """Whether the endpoint has returned a status of 400 and above (S3)."""
    if not hasattr(request.state, "status_code"):
        raise RuntimeError(
            "use app.routing.Router: it shows the session what the endpoint answers"
        )
    return bool(request.state.status_code >= 400)


async def take_write_place(request: Request) -> AsyncIterator[None]:
    """Wait until a connection for writing is free."""
    async with get_database(request).write_admission.place():
        yield


async def take_read_place(request: Request) -> AsyncIterator[None]:
    """Wait until a connection for reading is free."""
    async with get_database(request).read_admission.place():
        yield


{% if cookiecutter.io == 'async' %}
async def read_alone(
    request: Request, function: Callable[[ReadSession, ArgT], Awaitable[T]], arg: ArgT
) -> T:
    """Return `function(session, arg)`, and give place and connection back at once.

    This is for reading before something slow, as verifying a password is.
    """
    database = get_database(request)
    async with database.read_admission.place(), database.read() as session:
        return await function(session, arg)
{% else %}
async def read_alone(
    request: Request, function: Callable[[ReadSession, ArgT], T], arg: ArgT
) -> T:
    """Return `function(session, arg)`, and give place and connection back at once.

    This is for reading before something slow, as verifying a password is.
    """
    database = get_database(request)

    def read() -> T:
        with database.read() as session:
            return function(session, arg)

    async with database.read_admission.place():
        return await to_thread.run_sync(read)
{% endif %}
