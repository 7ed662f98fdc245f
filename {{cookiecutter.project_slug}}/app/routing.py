"""The router that all features use, and what a request knows of its app."""

import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.requests import HTTPConnection
from fastapi.routing import APIRoute

from app.db.database import Database


def get_database(connection: HTTPConnection) -> Database:
    """Return the app's engines and sessions, for a request or a WebSocket."""
    database: Database = connection.app.state.database
    return database


def status_of(request: Request) -> int:
    """Return the status of the response that the endpoint has returned."""
    status: int | None = getattr(request.state, "status_code", None)
    if status is None:
        raise RuntimeError(
            "use app.routing.Router: it shows the session the status of the response"
        )
    return status


class Route(APIRoute):
    """Shows the session's dependency the status of the response, before it commits.

    A returned error response raises nothing, so without this it would be saved.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Take the options of `APIRoute`."""
        if inspect.isfunction(endpoint) and not _is_asynchronous(endpoint):
            endpoint = self._in_one_thread(endpoint)
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, with the status noted in `request.state`."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            response = await handler(request)
            request.state.status_code = response.status_code
            return response

        return handle

    def _in_one_thread(self, endpoint: Callable[..., Any]) -> Callable[..., Any]:
        # FastAPI takes one thread call for the endpoint and another for its result.
        def run(values: dict[str, Any]) -> Any:
            result = endpoint(**values)
            if self.response_field is None or isinstance(result, Response):
                return result
            valid, errors = self.response_field.validate(result, {}, loc=("response",))
            return result if errors else valid  # FastAPI reports the errors

        @wraps(endpoint)
        async def call(**values: Any) -> Any:
            return await run_in_threadpool(run, values)

        return call


def _is_asynchronous(function: Callable[..., Any]) -> bool:
    kinds = (
        inspect.iscoroutinefunction,
        inspect.isasyncgenfunction,
        inspect.isgeneratorfunction,
    )
    return any(is_kind(function) for is_kind in kinds)


class Router(APIRouter):
    """An `APIRouter` whose routes are `Route`s."""

    def __init__(self, **options: Any) -> None:
        """Take the options of `APIRouter`."""
        super().__init__(route_class=Route, **options)
