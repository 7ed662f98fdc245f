"""What surrounds every request: its id, the last answer to an error, the size limit."""

import re
from asyncio import CancelledError
from http import HTTPStatus
from uuid import uuid4

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logs import current_route, logger, request_scope
from app.problems import ProblemResponse

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestMiddleware:
    """Gives the request an id, which the client gets as `X-Request-ID` (S18).

    An exception that nothing else took becomes a 500 here rather than in the server,
    which would close the connection without a word.
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
        request = Request(scope, receive)
        request_id = request.headers.get("X-Request-ID", "")
        if not _ID.fullmatch(request_id):
            request_id = uuid4().hex
        request.state.request_id = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        token = request_scope.set(scope)
        try:
            if self._is_too_large(request):
                answer = ProblemResponse(
                    request,
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"The body may have at most {self.max_body_size} bytes.",
                )
                await answer(scope, receive, send_with_id)
            else:
                await self.app(scope, receive, send_with_id)
        except CancelledError:
            # At its end, the server waits for requests no longer than it is told to.
            if not started:
                answer = ProblemResponse(
                    request,
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "The service is shutting down. Try again.",
                    type="shutting-down",
                    headers={"Retry-After": "5"},
                )
                await answer(scope, receive, send_with_id)
            raise
        except Exception:
            logger.exception("%s failed", current_route())
            if started:
                raise  # cut the connection: what was sent is not the whole answer
            answer = ProblemResponse(
                request,
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "Something went wrong on our side.",
            )
            await answer(scope, receive, send_with_id)
        finally:
            request_scope.reset(token)

    def _is_too_large(self, request: Request) -> bool:
        announced = request.headers.get("Content-Length", "")
        # Servers refuse a Content-Length that is no number.
        return announced.isdecimal() and float(announced) > self.max_body_size
