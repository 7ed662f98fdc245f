"""The request being served, for code that is not handed a `Request`."""

from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

# The ASGI scope; routing adds the route to it. Tasks and threads that a request starts
# inherit it.
request_scope: ContextVar[MutableMapping[str, Any] | None] = ContextVar(
    "request_scope", default=None
)


def current_request_id() -> str:
    """Return the request's id, `-` outside requests."""
    scope = request_scope.get()
    return str(scope["state"]["request_id"]) if scope else "-"


def current_route() -> str:
    """Return method and path template, as in `GET /products/{id}`."""
    scope = request_scope.get()
    if not scope:
        return "no request"
    return f"{scope['method']} {route_of(scope)}"


def route_of(scope: MutableMapping[str, Any]) -> str:
    """Return the path template; without a route the path, quoted as in a URL."""
    path: str | None = getattr(scope.get("route"), "path", None)
    return path or quote(scope["path"], errors="replace")


def is_in_endpoint() -> bool:
    """Whether the request's endpoint has not returned yet."""
    scope = request_scope.get()
    return scope is not None and "status_code" not in scope["state"]


def note_commit(*, is_over: bool) -> None:
    """Remember that the request has begun to save something, and that it has."""
    if scope := request_scope.get():
        scope["state"]["is_committing"] = not is_over
        scope["state"]["has_committed"] = is_over or has_committed()


def is_committing() -> bool:
    """Whether a COMMIT has begun, and nobody knows yet what it has done."""
    scope = request_scope.get()
    return scope is not None and bool(scope["state"].get("is_committing"))


def has_committed() -> bool:
    """Whether the request has saved something."""
    scope = request_scope.get()
    return scope is not None and bool(scope["state"].get("has_committed"))
