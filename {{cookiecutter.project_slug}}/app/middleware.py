"""What surrounds every request: its id, the last error handler, a size limit."""

import re
from asyncio import CancelledError
from http import HTTPStatus
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.context import current_route, has_committed, request_scope
from app.db.errors import FAILED, FAILED_AFTER_COMMIT
from app.logs import logger
from app.problems import ProblemResponse

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestMiddleware:
    """Gives the request an id, which the client gets as `X-Request-ID`.

    An exception that nothing else handles becomes a problem here. The server would only
    close the connection.
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
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"")
        if not _ID.fullmatch(request_id):
            request_id = uuid4().hex.encode()
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"].append((b"x-request-id", request_id))
            await send(message)

        token = request_scope.set(scope)
        try:
            # Servers refuse a Content-Length that is no number.
            announced = headers.get(b"content-length", b"")
            if announced.isdigit() and float(announced) > self.max_body_size:
                response = ProblemResponse(
                    scope["path"],
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"The body may have at most {self.max_body_size} bytes.",
                )
                await response(scope, receive, send_with_id)
            else:
                await self.app(scope, receive, send_with_id)
        except CancelledError:
            # The server cancels requests that outlast its graceful-shutdown timeout.
            if not started:
                response = _shutting_down(scope["path"])
                await response(scope, receive, send_with_id)
            raise
        except Exception:
            logger.exception("%s failed", current_route())
            if started:
                raise  # cut the connection: what was sent is not the whole response
            response = ProblemResponse(scope["path"], FAILED.status, FAILED.detail)
            await response(scope, receive, send_with_id)
        finally:
            request_scope.reset(token)


def _shutting_down(path: str) -> ProblemResponse:
    if has_committed():
        problem = FAILED_AFTER_COMMIT
        return ProblemResponse(path, problem.status, problem.detail, type=problem.type)
    return ProblemResponse(
        path,
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The service is shutting down. Try again.",
        type="shutting-down",
        headers={"Retry-After": "5"},
    )
