"""The router that all features use."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute


class Route(APIRoute):
    """Shows the session's dependency what the endpoint answers, before it commits (S3).

    A returned error response raises nothing, so without this it would be saved.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, with the status noted in `request.state`."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            response = await handler(request)
            request.state.status_code = response.status_code
            return response

        return handle


class Router(APIRouter):
    """An `APIRouter` whose routes are `Route`s."""

    def __init__(self, **options: Any) -> None:
        """Take the options of `APIRouter`."""
        super().__init__(route_class=Route, **options)
