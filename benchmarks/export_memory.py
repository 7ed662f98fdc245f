"""How much memory a service needs to export all products, which a stream bounds.

However many there are, it has to be about the same (S13). To measure it, here with the
synchronous variant and a tenth of the rows:

    .venv/bin/python -m benchmarks.export_memory --rows 100000 --variant io=sync

A project is rendered and served by uvicorn on this machine, on a PostgreSQL of its own
that SQL has filled. The client counts lines and keeps none. Linux only: the figures are
the kernel's, from /proc. No test: what an interpreter needs differs between machines.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from httpx2 import Client

from benchmarks.options import number_from, parser_of
from tests.postgres import Cluster, Server
from tests.service import MIGRATE, Service, run
from tests.template import render

WARM_UP = 5


def fill(server: Server, url: str, rows: int) -> None:
    """Store as many products."""
    server.execute(
        f"""
        INSERT INTO products (sku, name, price, stock)
        SELECT 'sku-' || number, 'Product ' || number, 100, 1
        FROM generate_series(1, {rows}) AS number
        """,
        url,
    )


def forget_peak(pid: int) -> None:
    """Let the kernel count a process's highest figure from here."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def memory(pid: int) -> dict[str, int]:
    """Return what a process has in memory, and has had at most, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return {name: int(kib) for name, kib in re.findall(r"(Vm\w+):\s+(\d+)", status)}


def exported(client: Client) -> int:
    """Read the whole export, and return how many lines it has."""
    with client.stream("GET", "/products/export") as answer:
        assert answer.status_code == 200
        return sum(chunk.count(b"\n") for chunk in answer.iter_raw())


def line(when: str, figures: dict[str, int]) -> str:
    """Return the figures as a line."""
    now, most = (figures[name] / 1_024 for name in ("VmRSS", "VmHWM"))
    return f"{when}: {now:.1f} MiB resident, {most:.1f} MiB at most"


def main() -> None:
    """Measure, and print what it gave."""
    parser = parser_of("export_memory", __doc__)
    parser.add_argument(
        "--rows",
        type=number_from(1, 100_000_000),
        default=1_000_000,
        help="to export (1,000,000)",
    )
    options = parser.parse_args()
    with TemporaryDirectory() as folder, Cluster() as cluster:
        project = render(dict(options.variant), Path(folder))
        settings: dict[str, Any] = {
            "DATABASE_URL": cluster.url,
            "DATABASE_STREAM_TIMEOUT": 0,
        }
        run(project, *MIGRATE, **settings)
        with Service(project, **settings) as service:
            client, server = service.client(), Server(cluster.url)
            for _ in range(WARM_UP):
                assert exported(client) == 0
            fill(server, cluster.url, options.rows)
            forget_peak(service.pid)
            before = memory(service.pid)
            start = time.perf_counter()
            lines = exported(client)
            seconds = time.perf_counter() - start
            after = memory(service.pid)
    assert lines == options.rows, f"{lines} lines"
    print(f"{lines} rows in {seconds:.1f} s, {lines / seconds:.0f} a second")
    print(line("before", before))
    print(line("after", after))


if __name__ == "__main__":
    main()
