"""What a collector of OpenTelemetry hears of a service's pools."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from tests.service import MIGRATE, PATIENCE, Service, run, wait_until
from tests.shop import create, read, token_of_somebody_new
from tests.template import EXTREMES, Answers, Bakery, name_of

pytestmark = pytest.mark.slow

# From the name of a metric, and of a pool, to what was measured last.
Gauges = dict[tuple[str, str], int]


def gauges_in(body: bytes) -> Gauges:
    """Return what an export says of the pools."""
    request = ExportMetricsServiceRequest.FromString(body)
    return {
        (metric.name, attribute.value.string_value): point.as_int
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.gauge.data_points
        for attribute in point.attributes
        if attribute.key == "db.pool.name"
    }


def pool(name: str, **measured: int) -> Gauges:
    """Return the gauges of a pool of two connections, zero unless they are given."""
    others = ("checked_in", "checked_out", "overflow", "waiting")
    measured = {"size": 2, **dict.fromkeys(others, 0), **measured}
    return {(f"db.pool.{each}", name): value for each, value in measured.items()}


@contextmanager
def collector() -> Iterator[tuple[str, Gauges]]:
    """Give the address of a collector, and the pools' gauges as it hears of them."""
    gauges: Gauges = {}

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/metrics":
                gauges.update(gauges_in(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", gauges
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("combination", EXTREMES, ids=name_of)
def test_a_collector_hears_of_the_pools(
    combination: Answers, bake: Bakery, database: str
) -> None:
    project = bake(**combination, example=True)
    run(project, *MIGRATE, DATABASE_URL=database)
    with (
        collector() as (address, gauges),
        Service(
            project,
            ENVIRONMENT="test",
            DATABASE_URL=database,
            DATABASE_POOL_SIZE=2,
            DATABASE_MAX_OVERFLOW=1,
            DATABASE_POOL_TIMEOUT=PATIENCE,
            FASTAPI_OTEL_AUTO_CONFIGURE="true",
            OTEL_EXPORTER_OTLP_ENDPOINT=address,
            OTEL_METRIC_EXPORT_INTERVAL=200,  # milliseconds
        ) as service,
        ThreadPoolExecutor(10) as threads,
    ):
        unused = pool("write") | pool("read")
        wait_until(lambda: gauges == unused)
        client = service.client(token_of_somebody_new(service.client()))
        used = pool("write", checked_in=1) | pool("read", checked_in=1)
        wait_until(lambda: gauges == used)
        with psycopg.connect(database) as connection:
            connection.execute("LOCK TABLE products")
            asked = [threads.submit(create, client) for _ in range(2 + 1 + 4)]
            asked += [threads.submit(read, client) for _ in range(2)]
            full = pool("write", checked_out=2 + 1, overflow=1, waiting=4)
            full |= pool("read", checked_out=2)
            wait_until(lambda: gauges == full)
        assert {each.result().status_code for each in asked} <= {200, 201, 404}
        free = pool("write", checked_in=2) | pool("read", checked_in=2)
        wait_until(lambda: gauges == free)
