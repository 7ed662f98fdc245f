"""The application: `uvicorn app.main:app` serves it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import create_task_group, to_thread
from fastapi import FastAPI
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.cors import CORSMiddleware

from app import health
{% if cookiecutter.example %}
from app.auth.passwords import Passwords
from app.auth.router import router as auth
from app.auth.tokens import Tokens
{% endif %}
from app.config import PROJECT, PYPROJECT, Settings, load_settings
from app.db import health as database_health
from app.db import migrations
from app.db.metrics import observe
from app.db.session import Database
from app.logs import configure_logging
from app.middleware import RequestMiddleware
{% if cookiecutter.example %}
from app.orders.router import router as orders
{% endif %}
from app.problems import add_problem_handlers
{% if cookiecutter.example %}
from app.products.router import router as products
from app.users.router import router as users
from app.users.transfers import router as transfers
{% endif %}

# How long the end of the process waits for requests to give back their connections.
DRAIN_SECONDS = 5


def create_app(settings: Settings) -> FastAPI:
    """Return the application; it connects to nothing before it is started (S6)."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if settings.is_sqlite and settings.environment == "development":
            await to_thread.run_sync(migrations.upgrade, settings)
        app.state.outdated_revisions = migrations.outdated_revisions(settings)
        app.state.database = database = Database(settings)
        observe(database)
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

    configure_logging(settings.log_level)
    app = FastAPI(
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
    add_problem_handlers(app)
    # The first one added is the innermost.
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_body_size)
    app.add_middleware(RequestMiddleware, max_body_size=settings.max_body_size)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID"],
        )
    app.include_router(health.router)
    app.include_router(database_health.router)
{% if cookiecutter.example %}
    app.include_router(auth)
    app.include_router(users)
    app.include_router(transfers)
    app.include_router(products)
    app.include_router(orders)
{% endif %}
    return app


app = create_app(load_settings())
