{% extends "async.jinja" %}
{% block code %}
"""Liveness, readiness, and the gauges of the database."""

import time
{% if cookiecutter.io == 'async' %}
from asyncio import timeout
{% endif %}
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar, Literal

from fastapi import Request
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.db.errors import DatabaseUnavailableError
from app.dependencies import ReadDep, get_database
from app.problems import ProblemError, problem_responses
from app.routing import Router

router = Router(prefix="/health", tags=["health"])
{% if cookiecutter.io == 'async' %}

# The server's own timeouts are shorter; this one is for a server that is silent.
PATIENCE = 4
{% endif %}


class NotReadyError(ProblemError):
    """The process must not get traffic."""

    status = 503
    type = "not-ready"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "5"}


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


@router.get("/ready", responses=problem_responses())
async def ready(request: Request) -> Health:
    """Respond with 200 if the database responds and all migrations are applied.

    This has a connection of its own: full pools are no reason to stop traffic.
    """
    query = text("SELECT version_num FROM alembic_version")
    engine = get_database(request).readiness_engine
    try:
{% if cookiecutter.io == 'async' %}
        async with timeout(PATIENCE), engine.connect() as connection:
            revision = await connection.scalar(query)
    except (DatabaseUnavailableError, SQLAlchemyError, TimeoutError) as error:
{% else %}
        with engine.connect() as connection:
            revision = connection.scalar(query)
    except (DatabaseUnavailableError, SQLAlchemyError) as error:
{% endif %}
        raise NotReadyError("The database does not respond, or is empty.") from error
    # A revision that is unknown here is ready: the next release is being rolled out.
    if revision is None or revision in request.app.state.outdated_revisions:
        raise NotReadyError("Migrations are pending.")
    return Health()


@router.get("/database", responses=problem_responses())
async def database(request: Request, db: ReadDep) -> DatabaseHealth:
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
@router.get("/live", responses=problem_responses())
async def live() -> Health:
    """Respond as long as the process can: no database, no thread."""
    return Health()
{% endblock %}
