"""What surrounds every request: its id, its line in the log, the last error handler."""

import logging
import re
from asyncio import CancelledError
from http import HTTPStatus
from time import perf_counter
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.context import (
    current_route,
    has_committed,
    is_committing,
    request_scope,
    route_of,
)
from app.db.errors import FAILED, FAILED_AFTER_COMMIT, SHUTTING_DOWN, UNKNOWN_COMMIT
from app.logs import access_logger, logger
from app.problems import ProblemResponse

_ACCESS = "%(method)s %(route)s %(status)s %(duration_ms)s ms"
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestMiddleware:
    """Gives the request an id, which the client gets as `X-Request-ID`, and logs it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = perf_counter()
        request_id = dict(scope["headers"]).get(b"x-request-id", b"")
        if not _ID.fullmatch(request_id):
            request_id = uuid4().hex.encode()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id.decode()
        is_complete = False

        async def send_with_id(message: Message) -> None:
            nonlocal is_complete
            if message["type"] == "http.response.start":
                state["sent_status"] = message["status"]
                message["headers"].append((b"x-request-id", request_id))
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                is_complete = True
                _log_access(scope, start)

        token = request_scope.set(scope)
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            if not is_complete:
                _log_access(scope, start)
            request_scope.reset(token)


def _log_access(scope: Scope, start: float) -> None:
    route = route_of(scope)
    # Platforms ask all the time; readiness says itself when it changes.
    level = logging.DEBUG if route.startswith("/health/") else logging.INFO
    if access_logger.isEnabledFor(level):
        fields = {
            "method": scope["method"],
            "route": route,
            "status": scope["state"].get("sent_status"),
            "duration_ms": round((perf_counter() - start) * 1_000, 1),
        }
        access_logger.log(level, _ACCESS, fields, extra=fields)


class ErrorMiddleware:
    """Responds where nothing else does: 500, 503 at the end of the process, 413.

    The server itself would only close the connection.
    """

    def __init__(self, app: ASGIApp, max_body_size: int) -> None:
        """Refuse a body that announces more than `max_body_size` bytes."""
        self.app = app
        self.max_body_size = max_body_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            # Servers refuse a Content-Length that is no number.
            announced = dict(scope["headers"]).get(b"content-length", b"")
            if announced.isdigit() and float(announced) > self.max_body_size:
                response = ProblemResponse(
                    scope["path"],
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"The body may have at most {self.max_body_size} bytes.",
                )
                await response(scope, receive, send)
            else:
                await self.app(scope, receive, send)
        except CancelledError:
            # The server cancels requests that outlast its graceful-shutdown timeout.
            if "sent_status" not in scope["state"]:
                response = _shutting_down(scope["path"])
                await response(scope, receive, send)
            raise
        except Exception:
            logger.exception("%s failed", current_route())
            if "sent_status" in scope["state"]:
                raise  # cut the connection: what was sent is not the whole response
            response = ProblemResponse.of(scope["path"], FAILED)
            await response(scope, receive, send)


def _shutting_down(path: str) -> ProblemResponse:
    if is_committing():
        return ProblemResponse.of(path, UNKNOWN_COMMIT)
    if has_committed():
        return ProblemResponse.of(path, FAILED_AFTER_COMMIT)
    return ProblemResponse.of(path, SHUTTING_DOWN)


class ProblemCORSMiddleware(CORSMiddleware):
    """Refuses a preflight request with a problem."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return Starlette's response, or a problem that says what it says."""
        response = super().preflight_response(request_headers)
        scope = request_scope.get()
        if scope is None or response.status_code < 400:
            return response
        detail = bytes(response.body).decode()
        del response.headers["Content-Length"], response.headers["Content-Type"]
        return ProblemResponse(
            scope["path"],
            response.status_code,
            f"{detail}.",
            type="cors-refused",
            headers=response.headers,
        )
