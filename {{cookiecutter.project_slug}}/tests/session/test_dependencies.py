{% extends "async.jinja" %}
{% block code %}
"""A request has one session of one kind; the start refuses other routes."""

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, WebSocket
from starlette.testclient import TestClient

from app.config import Settings
from app.dependencies import ReadDep, RouteError, SnapshotDep, StreamDep, WriteDep
from app.main import create_app
from app.routing import Router
from app.transaction import Transaction, get_transaction
from tests.session import probe

BareWriteDep = Annotated[Transaction, Depends(get_transaction)]


async def reader(_db: ReadDep) -> int:
    """Read the user."""
    return 1


ReaderDep = Annotated[int, Depends(reader)]


async def two_kinds(_snapshot: SnapshotDep, _db: WriteDep) -> None:
    """Read in one session, and write in another."""


async def a_reading_user_and_a_write(_user: ReaderDep, _db: WriteDep) -> None:
    """Write as a user who was read in another session."""


async def a_stream_and_a_read(_stream: StreamDep, _db: ReadDep) -> None:
    """Stream and read."""


async def another_scope(_db: BareWriteDep) -> None:
    """Commit after the response."""


REFUSED = [
    (two_kinds, "GET /refused takes SnapshotDep and WriteDep: two connections"),
    (a_reading_user_and_a_write, "takes ReadDep and WriteDep: two connections"),
    (a_stream_and_a_read, "takes ReadDep and StreamDep: two connections"),
    (another_scope, r"takes Depends\(get_transaction\): use WriteDep"),
]


@pytest.mark.parametrize("router_class", [Router, APIRouter])
@pytest.mark.parametrize(("endpoint", "message"), REFUSED)
def test_an_endpoint_that_would_deadlock_the_pool_is_refused_at_the_start(
    notes_settings: Settings,
    router_class: type[APIRouter],
    endpoint: Callable[..., Any],
    message: str,
) -> None:
    app = create_app(notes_settings)
    router = router_class()
    router.add_api_route("/refused", endpoint)
    app.include_router(router)
    with pytest.raises(RouteError, match=message), TestClient(app):
        pass


def test_dependencies_of_a_router_count_as_well(notes_settings: Settings) -> None:
    app = create_app(notes_settings)
    app.include_router(probe.router, dependencies=[Depends(reader)])
    with pytest.raises(RouteError, match="two connections"), TestClient(app):
        pass


def test_a_socket_that_takes_the_session_of_a_request_is_refused(
    notes_settings: Settings,
) -> None:
    def talk(_socket: WebSocket, _db: ReadDep) -> None:
        """Talk for as long as the client likes."""

    app = create_app(notes_settings)
    app.add_api_websocket_route("/talk", talk)
    refusal = "WebSocket /talk takes ReadDep, which belongs to a request"
    with pytest.raises(RouteError, match=refusal), TestClient(app):
        pass


def test_a_socket_may_do_without_a_session(notes_settings: Settings) -> None:
    def talk(_socket: WebSocket) -> None:
        """Talk of other things."""

    app = create_app(notes_settings)
    app.add_api_websocket_route("/talk", talk)
    with TestClient(app):
        pass


def test_a_router_that_does_not_show_its_status_is_refused(
    notes_settings: Settings,
) -> None:
    def write(_db: WriteDep) -> None:
        """Do nothing."""

    app = create_app(notes_settings)
    router = APIRouter()
    router.add_api_route("/other", write, methods=["POST"])
    app.include_router(router)
    refusal = "POST /other takes WriteDep: add it to an app.routing.Router"
    with pytest.raises(RouteError, match=refusal), TestClient(app):
        pass
{% endblock %}
