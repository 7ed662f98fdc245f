"""A request's place in the queue for a connection; asynchronous in any case (S15)."""

from collections.abc import AsyncIterator

from fastapi import Request

from app.db.session import Database


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


async def take_stream_place(request: Request) -> AsyncIterator[None]:
    """Wait until one of the connections is free that streams may have: half of them."""
    database = get_database(request)
    async with database.stream_admission.place(), database.read_admission.place():
        yield
