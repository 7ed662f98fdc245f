"""The router that all features use, and what a request knows of its app."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.requests import HTTPConnection
{% if cookiecutter.io == 'async' %}
from fastapi.routing import APIRoute

{% else %}

from app.concurrency import ThreadRoute
{% endif %}
from app.db.database import Database


def get_database(connection: HTTPConnection) -> Database:
    """Return the app's engines and sessions, for a request or a WebSocket."""
    database: Database = connection.app.state.database
    return database


def status_of(request: Request) -> int:
    """Return the status of the response that the endpoint has returned."""
    status: int = request.state.status_code
    return status


class Route({{ 'APIRoute' if cookiecutter.io == 'async' else 'ThreadRoute' }}):
    """Shows the session's dependency the status of the response, before it commits.

    An error response that is returned raises nothing, and is to save nothing either.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, with the status noted in `request.state`."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            response = await handler(request)
            # `is_in_endpoint()` of app/context.py looks for it as well.
            request.state.status_code = response.status_code
            return response

        return handle


class Router(APIRouter):
    """An `APIRouter` whose routes are `Route`s."""

    def __init__(self, **options: Any) -> None:
        """Take the options of `APIRouter`."""
        super().__init__(route_class=Route, **options)
