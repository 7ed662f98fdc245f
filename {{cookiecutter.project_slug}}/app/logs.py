"""Logging, with the id and the route of the request that a line belongs to."""

import logging
import logging.config
from contextvars import ContextVar

from starlette.types import Scope

logger = logging.getLogger("app")

# The ASGI scope of the request being served; routing adds the route to it.
request_scope: ContextVar[Scope | None] = ContextVar("request_scope", default=None)


def current_request_id() -> str:
    """Return the request's id, `-` outside requests."""
    scope = request_scope.get()
    return str(scope["state"]["request_id"]) if scope else "-"


def current_route() -> str:
    """Return method and path template, as in `GET /products/{id}`."""
    scope = request_scope.get()
    if not scope:
        return "no request"
    path = getattr(scope.get("route"), "path", scope["path"])
    return f"{scope['method']} {path}"


class RequestIdFilter(logging.Filter):
    """Gives each record the `request_id` of its request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        record.request_id = current_request_id()
        return True


def configure_logging(level: str) -> None:
    """Log to standard error, from `level` up; a traceback follows its line."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"request_id": {"()": RequestIdFilter}},
            "formatters": {
                "line": {
                    "format": "%(asctime)s %(levelname)s [%(request_id)s] "
                    "%(name)s: %(message)s"
                }
            },
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "filters": ["request_id"],
                    "formatter": "line",
                }
            },
            "loggers": {"app": {"level": level, "handlers": ["stderr"]}},
        }
    )
