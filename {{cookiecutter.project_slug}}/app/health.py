{% extends "async.jinja" %}
{% block code %}
"""Liveness, readiness, and the gauges of the database."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar, Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app.db.errors import DatabaseUnavailableError, is_connection_lost
from app.dependencies import ReadDep, get_database
from app.logs import cause_of, logger
from app.problems import ProblemError, problem_responses
from app.routing import Router

router = Router(prefix="/health", tags=["health"])

AWAY = "The database cannot be reached."
REFUSES = "The database does not say which migrations it has."


class NotReadyError(ProblemError):
    """The process must not get traffic."""

    status = 503
    type = "not-ready"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "5"}
    is_logged = True


class Health(BaseModel):
    """All is well; otherwise the response is a problem."""

    status: Literal["ok"] = "ok"


class DatabaseHealth(Health):
    """The connections of both pools together, and the requests that wait for one."""

    size: int
    checked_in: int
    checked_out: int
    overflow: int
    waiting: int
    latency_ms: float


@router.head("/database", include_in_schema=False)
@router.get("/database", responses=problem_responses())
async def get_database_health(request: Request, db: ReadDep) -> DatabaseHealth:
    """Show the pools' gauges and how long the database takes for a round trip."""
    start = time.perf_counter()
    await db.scalar(text("SELECT 1"))
    latency_ms = round((time.perf_counter() - start) * 1_000, 3)
    totals = Counter[str]()
    for gauges in get_database(request).gauges().values():
        totals.update(gauges)
    return DatabaseHealth.model_validate({**totals, "latency_ms": latency_ms})


{% endblock %}
{% block verbatim %}
async def why_not_ready(app: FastAPI) -> str | None:
    """Return why the process is not to get traffic, None if it is.

    The log says so when that changes, not each time that somebody asks.
    """
    reason: str | None
    try:
        reason = line = await app.state.migrations.missing()
    except (DatabaseUnavailableError, SQLAlchemyError, TimeoutError) as error:
        is_refused = isinstance(error, DBAPIError) and not is_connection_lost(error)
        reason = REFUSES if is_refused else AWAY
        line = f"{reason} {cause_of(error)}"
    if reason != getattr(app.state, "not_ready", None):
        app.state.not_ready = reason
        if reason:
            logger.warning("not ready: %s", line)
        else:
            logger.info("ready")
    return reason


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses=problem_responses())
async def get_readiness(request: Request) -> Health:
    """Respond with 200 if the database responds and all migrations are applied.

    This has a connection of its own: full pools are no reason to stop traffic.
    """
    if reason := await why_not_ready(request.app):
        raise NotReadyError(reason)
    return Health()


@router.head("/live", include_in_schema=False)
@router.get("/live", responses=problem_responses())
async def get_liveness() -> Health:
    """Respond as long as the process can: no database, no thread."""
    return Health()
{% endblock %}
