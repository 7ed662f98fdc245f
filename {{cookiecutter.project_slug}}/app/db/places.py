"""A request's place in the queue for a connection; asynchronous in any case (S15)."""

from collections.abc import AsyncIterator

from fastapi import Request

from app.db.session import Database


def get_database(request: Request) -> Database:
    """Return the app's engines and sessions."""
    database: Database = request.app.state.database
    return database


async def take_write_place(request: Request) -> AsyncIterator[None]:
    """Wait until a connection for writing is free."""
    async with get_database(request).write_admission.place():
        yield


async def take_read_place(request: Request) -> AsyncIterator[None]:
    """Wait until a connection for reading is free."""
    async with get_database(request).read_admission.place():
        yield
