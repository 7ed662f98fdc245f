"""Errors as clients see them: one shape, RFC 9457 `application/problem+json`."""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Self

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.requests import HTTPConnection
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.status import WS_1011_INTERNAL_ERROR
from starlette.websockets import WebSocket, WebSocketState

from app.context import current_route, has_committed, route_of
from app.db.driver import DRIVER_ERRORS
from app.db.errors import (
    BUSY,
    EXHAUSTED,
    FAILED,
    FAILED_AFTER_COMMIT,
    NOT_MIGRATED,
    UNKNOWN_COMMIT,
    DatabaseError,
    DatabaseProblem,
    PoolExhaustedError,
    is_schema_missing,
    sqlstate,
    to_problem,
)
from app.logs import cause_of, logger
from app.schemas import Problem

# How many validation errors a response lists, and how long a field's name may be.
MOST_ERRORS = 20
LONGEST_NAME = 100
# Where the OpenAPI document describes a problem, once for all responses.
SCHEMA = "#/components/schemas/Problem"


class ProblemError(Exception):
    """Raise it, or a subclass, anywhere: the response is a problem.

    `detail` is for the client: no SQL, no host name, nothing of another's data.
    """

    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    type = "about:blank"
    headers: ClassVar[Mapping[str, str]] = {}
    is_logged: ClassVar[bool] = False
    """Whether who raises it has told the log already."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class UnauthorizedError(ProblemError):
    """The client has not signed in, or not as a known user."""

    status = HTTPStatus.UNAUTHORIZED
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}


class ForbiddenError(ProblemError):
    """The client is known, and may not do that."""

    status = HTTPStatus.FORBIDDEN


class NotFoundError(ProblemError):
    """What the client asks for does not exist, or not for this client."""

    status = HTTPStatus.NOT_FOUND


class ConflictError(ProblemError):
    """The request contradicts what is stored."""

    status = HTTPStatus.CONFLICT


class UnprocessableError(ProblemError):
    """The request fits its schema, but makes no sense."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class ProblemResponse(Response):
    """A problem in its media type."""

    media_type = "application/problem+json"

    def __init__(
        self,
        path: str,
        status: int,
        detail: str,
        *,
        type: str = "about:blank",
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        is_known = status in HTTPStatus.__members__.values()
        problem = {
            "type": type,
            "title": HTTPStatus(status).phrase if is_known else "Error",
            "status": int(status),
            "detail": detail,
            "instance": path,
            **members,
        }
        # ASCII output: a lone surrogate from the request cannot break it.
        super().__init__(json.dumps(problem), status, headers)

    @classmethod
    def of(cls, path: str, problem: DatabaseProblem) -> Self:
        """Return what a client is told about the database."""
        retry = {"Retry-After": str(problem.retry_after)} if problem.retry_after else {}
        return cls(
            path, problem.status, problem.detail, type=problem.type, headers=retry
        )


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document `statuses`, and those that every endpoint may respond with."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {ProblemResponse.media_type: {"schema": {"$ref": SCHEMA}}},
        }
        for status in sorted({*statuses, 413, 422, 500, 503, 504})
    }


class ProblemAPI(FastAPI):
    """An application that responds to every error with a problem."""

    def __init__(self, **options: Any) -> None:
        """Take the options of `FastAPI`."""
        # A client that is made from the document gets methods of these names.
        options.setdefault("generate_unique_id_function", lambda route: route.name)
        super().__init__(**options)
        for error_class, handler in _HANDLERS.items():
            self.exception_handler(error_class)(_or_close(handler))

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        document = super().openapi()
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return document


def _name(type: str, error: Exception) -> str:
    """Return what the log calls a problem: `about:blank` would say nothing."""
    return error.__class__.__name__ if type == "about:blank" else type


async def _on_problem(request: Request, error: ProblemError) -> Response:
    # 505 is the client's mistake.
    if 500 <= error.status < 505 and not error.is_logged:
        name, is_known = _name(error.type, error), error.status >= 503
        logger.error(
            "%s: %s: %s",
            current_route(),
            name,
            cause_of(error),
            exc_info=None if is_known else error,
        )
    return ProblemResponse(
        request.scope["path"],
        error.status,
        error.detail,
        type=error.type,
        headers=error.headers,
    )


def _allowed_methods(request: Request, path: str) -> set[str]:
    # The route that refuses knows its own methods only, not all of its path.
    contexts = iter_route_contexts(request.app.routes)
    routes = [each.original_route for each in contexts]
    same = [each for each in routes if isinstance(each, Route) and each.path == path]
    return {method for each in same for method in each.methods or ()}


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    headers = error.headers
    route = request.scope.get("route")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and route:
        headers = {"Allow": ", ".join(sorted(_allowed_methods(request, route.path)))}
    return ProblemResponse(
        request.scope["path"], error.status_code, str(error.detail), headers=headers
    )


async def _on_validation_error(
    request: Request, error: RequestValidationError
) -> Response:
    # Only where and what: the input is not echoed, it may hold a password. And only
    # the first: a large body may have very many. A dependency that takes the same body
    # reports the same errors once more.
    errors: list[dict[str, Any]] = []
    for each in error.errors():
        loc = [
            part[:LONGEST_NAME] if isinstance(part, str) else part
            for part in each["loc"]
        ]
        shown = {"loc": loc, "msg": each["msg"], "type": each["type"]}
        if shown not in errors:
            errors.append(shown)
        if len(errors) == MOST_ERRORS:
            break
    logger.debug("%s: validation-error: %s", current_route(), errors)
    return ProblemResponse(
        request.scope["path"],
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The request does not fit its schema.",
        type="validation-error",
        errors=errors,
    )


async def _on_database_error(request: Request, error: Exception) -> Response:
    problem, cause = to_problem(error), cause_of(error)
    if is_schema_missing(error) and (hint := await _missing_migrations(request.app)):
        problem, cause = NOT_MIGRATED, f"{hint} {cause}"
    # "Try again" would be wrong: something was saved.
    if problem.status > 500 and problem is not UNKNOWN_COMMIT and has_committed():
        problem = FAILED_AFTER_COMMIT
    level = logging.ERROR if problem.status >= 500 else logging.INFO
    if problem is BUSY:
        level = logging.WARNING
    elif problem is EXHAUSTED and isinstance(error, PoolExhaustedError):
        level = logging.DEBUG  # admission logs when that begins, and when it ends
    logger.log(
        level,
        "%s: %s%s: %s",
        current_route(),
        _name(problem.type, error),
        f" (SQLSTATE {state})" if (state := sqlstate(error)) else "",
        cause,
        exc_info=error if problem is FAILED else None,
    )
    return ProblemResponse.of(request.scope["path"], problem)


async def _missing_migrations(app: FastAPI) -> str | None:
    try:
        missing: str | None = await app.state.migrations.missing()
    except (DatabaseError, SQLAlchemyError, TimeoutError):
        return None  # nobody can tell now
    return missing


_HANDLERS: dict[type[Exception], Callable[[Any, Any], Awaitable[Response]]] = {
    ProblemError: _on_problem,
    HTTPException: _on_http_exception,
    RequestValidationError: _on_validation_error,
    DatabaseError: _on_database_error,
    SQLAlchemyError: _on_database_error,
    **dict.fromkeys(DRIVER_ERRORS, _on_database_error),
}


def _or_close(
    handler: Callable[[Any, Any], Awaitable[Response]],
) -> Callable[[Any, Any], Awaitable[Response | None]]:
    """Return a handler that closes a WebSocket, which takes no response any more."""

    async def handle(connection: HTTPConnection, error: Exception) -> Response | None:
        if (
            isinstance(connection, WebSocket)
            and connection.application_state is WebSocketState.CONNECTED
        ):
            route = route_of(connection.scope)
            logger.error("WebSocket %s failed", route, exc_info=error)
            await connection.close(WS_1011_INTERNAL_ERROR)
            return None
        return await handler(connection, error)

    return handle
