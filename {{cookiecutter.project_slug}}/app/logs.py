"""The log: readable lines, or JSON; each has the id of its request and of its trace.

All of it goes to standard error by one handler, uvicorn's lines included. Give what a
machine is to find as `extra`: `logger.info("…", extra={"order_id": 1})`.
"""

import json
import logging
from datetime import UTC, datetime
from traceback import walk_tb
from typing import Any

from opentelemetry import trace

from app.config import ROOT, Settings
from app.context import current_request_id

logger = logging.getLogger("app")
access_logger = logging.getLogger("app.access")

_LINE = "%(asctime)s %(levelname)s [%(request_id)s] %(name)s: %(message)s"
# What every record has; all else was given as `extra`.
_USUAL = {
    *vars(logging.makeLogRecord({})),
    *("asctime", "color_message", "message", "taskName", "trace_id"),
}
_APP = str(ROOT / "app")
_SESSION_LAYER = str(ROOT / "app" / "db")


class ContextFilter(logging.Filter):
    """Gives each record the `request_id` and the `trace_id` that it belongs to."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        span = trace.get_current_span().get_span_context()
        record.request_id = current_request_id()
        record.trace_id = f"{span.trace_id:032x}" if span.is_valid else None
        return True


class LineFormatter(logging.Formatter):
    """One readable line a record; a traceback follows its line."""

    def __init__(self) -> None:
        super().__init__(_LINE)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line; the trace stands at its end."""
        line = super().formatMessage(record)
        trace_id = getattr(record, "trace_id", None)
        return f"{line} trace_id={trace_id}" if trace_id else line


class JsonFormatter(logging.Formatter):
    """One JSON object a record, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with all that was given as `extra`."""
        time = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if trace_id := getattr(record, "trace_id", None):
            fields["trace_id"] = trace_id
        fields |= {k: v for k, v in vars(record).items() if k not in _USUAL}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


# Tests give it another stream.
handler = logging.StreamHandler()
handler.addFilter(ContextFilter())


def configure_logging(settings: Settings) -> None:
    """Log the app from LOG_LEVEL up, libraries from WARNING up, as LOG_FORMAT says."""
    is_json = settings.log_format == "json"
    handler.setFormatter(JsonFormatter() if is_json else LineFormatter())
    logging.getLogger().addHandler(handler)
    logger.setLevel(settings.log_level)
    # uvicorn sets up its own handlers before it imports the app. RequestMiddleware
    # logs each request; uvicorn does not when its access logger has no handler.
    for name, propagates in (("uvicorn", True), ("uvicorn.access", False)):
        theirs = logging.getLogger(name)
        theirs.handlers.clear()
        theirs.propagate = propagates


def cause_of(error: BaseException) -> str:
    """Return what an error of a known kind is due to, on one line.

    That is the first error of the chain, the driver's own, and the line of the app,
    above the session layer, that led to it. Its text may hold the client's values: it
    is quoted.
    """
    place = ""
    for frame, line in walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if file.startswith(_APP) and not file.startswith(_SESSION_LAYER):
            place = f" at {file.removeprefix(str(ROOT))[1:]}:{line}"
    while error.__cause__:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error)!r}{place}"
