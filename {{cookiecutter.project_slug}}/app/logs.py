"""Logging, with the id of the request that a line belongs to."""

import logging
import logging.config

from app.context import current_request_id

logger = logging.getLogger("app")


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
