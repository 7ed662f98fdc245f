"""A request has one session, of one kind (S2)."""

from collections.abc import Iterator

import pytest
from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.testclient import TestClient

from app.config import Settings
from app.db import dependencies
from app.main import create_app
from app.routing import Route
from tests.session import probe

{% if cookiecutter.pattern == 'unit_of_work' %}
WRITE = dependencies.get_unit_of_work
{% else %}
WRITE = dependencies.get_write_session
{% endif %}
# Each kind, and when it ends: before the answer is sent, or after it.
KINDS = {
    WRITE: "function",
    dependencies.get_read_session: "function",
    dependencies.get_snapshot: "function",
    dependencies.get_stream_session: "request",
}


def sessions(dependant: Dependant) -> Iterator[Dependant]:
    for dependency in dependant.dependencies:
        if dependency.call in KINDS:
            yield dependency
        yield from sessions(dependency)


def routes(settings: Settings) -> list[APIRoute]:
    app = create_app(settings)
    app.include_router(probe.router)
    found = [
        context.original_route
        for context in iter_route_contexts(app.routes)
        if isinstance(context.original_route, APIRoute)
    ]
    assert len(found) > 10
    return found


def test_no_endpoint_takes_two_kinds_of_session(settings: Settings) -> None:
    for route in routes(settings):
        kinds = {dependency.call for dependency in sessions(route.dependant)}
        assert len(kinds) <= 1, f"{route.path} takes several kinds of session"


def test_every_session_ends_when_it_should(settings: Settings) -> None:
    for route in routes(settings):
        for session in sessions(route.dependant):
            assert session.call is not None
            for dependency in (session, *session.dependencies):
                scope = KINDS[session.call]
                assert dependency.scope == scope, f"{route.path} bypasses an alias"


def test_every_route_shows_its_status_to_the_session(settings: Settings) -> None:
    for route in routes(settings):
        assert isinstance(route, Route), f"{route.path} is not on an app.routing.Router"


def test_a_router_that_does_not_show_its_status_is_refused(
    notes_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    router = APIRouter()

    @router.post("/other")
    def write(_db: dependencies.WriteDep) -> None:
        """Do nothing."""

    app = create_app(notes_settings)
    app.include_router(router)
    with TestClient(app) as client:
        assert client.post("/other").status_code == 500
    assert "use app.routing.Router" in caplog.text
