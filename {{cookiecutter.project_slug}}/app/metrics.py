"""The pools' gauges as OpenTelemetry's metrics, beside FastAPI's own.

They cost nothing without a meter provider, as FASTAPI_OTEL_AUTO_CONFIGURE sets one up.
"""

from collections.abc import Callable, Iterable
from weakref import ref

from opentelemetry.metrics import (
    CallbackOptions,
    MeterProvider,
    Observation,
    get_meter_provider,
)

from app.db.database import Database

DESCRIPTIONS = {
    "size": "Connections that the pool keeps open",
    "checked_in": "Open connections that are free",
    "checked_out": "Connections in use",
    "overflow": "Connections beyond the size of the pool",
    "waiting": "Requests that wait for a connection",
}


def observe(database: Database, provider: MeterProvider | None = None) -> None:
    """Measure `db.pool.size` and so on, for `db.pool.name` write and read.

    Without a `provider`, the global one is used, as FastAPI does.
    """
    meter = (provider or get_meter_provider()).get_meter("app.db")
    reference = ref(database)

    def measure(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observations(_: CallbackOptions) -> Iterable[Observation]:
            if (database := reference()) is not None:
                for pool, gauges in database.gauges().items():
                    yield Observation(gauges[name], {"db.pool.name": pool})

        return observations

    for name, description in DESCRIPTIONS.items():
        meter.create_observable_gauge(
            f"db.pool.{name}", [measure(name)], description=description
        )
