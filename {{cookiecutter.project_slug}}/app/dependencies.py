"""Which session an endpoint gets: every alias, of which an endpoint takes one.

`ReadDep` runs one reading statement, `SnapshotDep` several that see the same state,
`StreamDep` lives as long as the response. `WriteDep`: see `app/transaction.py`.
"""

{% if cookiecutter.io == 'sync' %}
import inspect
{% endif %}
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

{% if cookiecutter.io == 'sync' %}
from anyio import to_thread
{% endif %}
from fastapi import Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, WebSocketRoute

{% if cookiecutter.io == 'sync' %}
from app.concurrency import closed_in_thread
{% endif %}
from app.db.session import ReadSession
from app.routing import Route, get_database
from app.transaction import WriteDep, get_transaction

__all__ = ["ReadDep", "SnapshotDep", "StreamDep", "WriteDep", "get_database"]


class RouteError(TypeError):
    """An endpoint uses sessions in a way that fails, or fails under load."""


{% if cookiecutter.io == 'async' %}
async def get_read_session(request: Request) -> AsyncIterator[ReadSession]:
    """Wait for a free connection, and give a session for one reading statement."""
    database = get_database(request)
    async with database.read_admission, database.read() as session:
        yield session


async def get_snapshot(request: Request) -> AsyncIterator[ReadSession]:
    """Wait for a free connection, and give a session whose statements see one state."""
    database = get_database(request)
    async with database.read_admission, database.snapshot() as session:
        yield session


async def get_stream_session(request: Request) -> AsyncIterator[ReadSession]:
    """Give a snapshot as long-lived as the response; streams have half the slots."""
    database = get_database(request)
    async with (
        database.stream_admission,
        database.read_admission,
        database.snapshot() as session,
    ):
        # Connect before the response starts, so that a failure is still a 503.
        await session.connection()
        yield session
{% else %}
async def get_read_session(request: Request) -> AsyncIterator[ReadSession]:
    """Wait for a free connection, and give a session for one reading statement."""
    database = get_database(request)
    async with database.read_admission, closed_in_thread(database.read()) as session:
        yield session


async def get_snapshot(request: Request) -> AsyncIterator[ReadSession]:
    """Wait for a free connection, and give a session whose statements see one state."""
    database = get_database(request)
    snapshot = database.snapshot()
    async with database.read_admission, closed_in_thread(snapshot) as session:
        yield session


async def get_stream_session(request: Request) -> AsyncIterator[ReadSession]:
    """Give a snapshot as long-lived as the response; streams have half the slots."""
    database = get_database(request)
    async with (
        database.stream_admission,
        database.read_admission,
        closed_in_thread(database.snapshot()) as session,
    ):
        # Connect before the response starts, so that a failure is still a 503.
        await to_thread.run_sync(session.connection)
        yield session
{% endif %}


ReadDep = Annotated[ReadSession, Depends(get_read_session, scope="function")]
SnapshotDep = Annotated[ReadSession, Depends(get_snapshot, scope="function")]
# Streams use FastAPI's default: they never commit.
StreamDep = Annotated[ReadSession, Depends(get_stream_session, scope="request")]

# The dependency of each kind, with its alias and the scope of that.
KINDS = {
    get_transaction: ("WriteDep", "function"),
    get_read_session: ("ReadDep", "function"),
    get_snapshot: ("SnapshotDep", "function"),
    get_stream_session: ("StreamDep", "request"),
}


def check_routes(app: FastAPI) -> None:
    """Raise `RouteError` if an endpoint of `app` uses sessions wrongly."""
    for route in iter_route_contexts(app.routes):
        dependant: Dependant | None = getattr(route, "dependant", None)
        if dependant is not None:
            name = " ".join([*sorted(route.methods or {"WebSocket"}), str(route.path)])
            _check(name, route.original_route, dependant)


def _check(route: str, original: BaseRoute, endpoint: Dependant) -> None:
    sessions = [each for each in _walk(endpoint) if each.call in KINDS]
    kinds = sorted({KINDS[each.call][0] for each in sessions if each.call})
    if kinds and isinstance(original, WebSocketRoute):
        raise RouteError(
            f"{route} takes {kinds[0]}, which belongs to a request: for each message, "
            "await run_transaction(database, service, …) or run_read(…)"
        )
    if len(kinds) > 1:
        raise RouteError(
            f"{route} takes {' and '.join(kinds)}: two connections for a request "
            "deadlock the pool under load; use one kind, for the user as well"
        )
    for each in sessions:
        alias, scope = KINDS[each.call] if each.call else ("", "")
        if each.scope != scope:
            raise RouteError(
                f"{route} takes Depends({getattr(each.call, '__name__', '')}): use "
                f"{alias}, whose scope ends the session at the right time"
            )
    if kinds and not isinstance(original, Route):
        raise RouteError(
            f"{route} takes {kinds[0]}: add it to an app.routing.Router, which shows "
            "the session the status of the response, and not to FastAPI's own router"
        )
{% if cookiecutter.io == 'sync' %}
    for each in _walk(endpoint):
        takes_session = any(sub.call in KINDS for sub in each.dependencies)
        function = inspect.unwrap(each.call) if each.call else None
        if takes_session and inspect.iscoroutinefunction(function):
            name = getattr(function, "__name__", "")
            raise RouteError(
                f"{route} uses its session in `async def {name}`, which blocks "
                f"all requests while the database works: write `def {name}`"
            )
{% endif %}


def _walk(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for each in dependant.dependencies:
        yield from _walk(each)
