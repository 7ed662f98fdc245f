"""The application: `uvicorn app.main:app` serves it."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import create_task_group, to_thread
from fastapi import FastAPI
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from app import health
from app.config import PROJECT, PYPROJECT, Settings, load_settings
from app.db import migrations
from app.db.database import Database
from app.db.pending import Migrations
from app.dependencies import check_routes
from app.logs import configure_logging
from app.metrics import observe
from app.middleware import (
    ErrorMiddleware,
    ProblemCORSMiddleware,
    RequestMiddleware,
)
{% if cookiecutter.example %}
from app.orders import catalogue
from app.orders.router import router as orders
{% endif %}
from app.problems import ProblemAPI
{% if cookiecutter.example %}
from app.products.router import router as products
from app.users import sign_in, transfers
from app.users.passwords import Passwords
from app.users.router import router as users
from app.users.tokens import Tokens
{% endif %}

# How long shutdown waits for requests to give back their connections.
DRAIN_SECONDS = 5


def create_app(settings: Settings) -> FastAPI:
    """Return the application; it connects to nothing before it is started."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        check_routes(app)  # those that were added since, as well
        if settings.is_sqlite and settings.environment == "development":
            await to_thread.run_sync(migrations.upgrade, settings)
        app.state.database = database = Database(settings)
        app.state.migrations = Migrations(settings, database)
        observe(database)
        if settings.environment != "test":
            _spare_the_garbage_collector()
        await health.why_not_ready(app)  # logged; it starts in any case
        try:
            yield
        finally:
            async with create_task_group() as tasks:
                tasks.start_soon(database.write_admission.drain, DRAIN_SECONDS)
                tasks.start_soon(database.read_admission.drain, DRAIN_SECONDS)
{% if cookiecutter.io == 'async' %}
            await database.dispose()
{% else %}
            database.dispose()
{% endif %}

    configure_logging(settings)
    app = ProblemAPI(
        title=PYPROJECT["tool"]["app"]["title"],
        description=PROJECT["description"],
        version=PROJECT["version"],
        lifespan=lifespan,
        # A redirect would go where the Host header says.
        redirect_slashes=False,
    )
{% if cookiecutter.example %}
    app.state.passwords = Passwords(settings)
    app.state.tokens = Tokens(settings)
{% endif %}
    # The first one added is the innermost.
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_body_size)
    app.add_middleware(ErrorMiddleware, max_body_size=settings.max_body_size)
    if settings.cors_origins:
        app.add_middleware(
            ProblemCORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID"],
        )
    app.add_middleware(RequestMiddleware)
    # The busiest first: FastAPI tries one router after the other.
{% if cookiecutter.example %}
    app.include_router(products)
    app.include_router(catalogue.router)
    app.include_router(orders)
    app.include_router(users)
    app.include_router(transfers.router)
    app.include_router(sign_in.router)
{% endif %}
    app.include_router(health.router)
    check_routes(app)
    return app


def _spare_the_garbage_collector() -> None:
    """Let it look only at what requests make, not at all that was imported.

    A full collection of a started service takes about 80 ms, and sets the p99.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


app = create_app(load_settings())
