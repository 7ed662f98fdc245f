"""How costs grow: with processes, pools, depth, rows and requests; and at rest."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import psycopg

from benchmarks import figures
from benchmarks.compare import rounds
from benchmarks.export_memory import exported, forget_peak, memory
from benchmarks.load import processor_seconds
from benchmarks.serving import (
    OURS,
    Bench,
    Contender,
    Service,
    alone,
    bench,
    contenders,
    together,
)
from benchmarks.workloads import PRODUCTS
from tests.service import run
from tests.template import DEFAULT, ROOT, VARIANTS, render, settings_in

PROCESSES = (1, 2, 3, 4)
POOLS = (5, 10, 15, 20)
CLIENTS = 64
ROWS = 1_000_000
MANY_ROWS = f"""
INSERT INTO products (sku, name, price, stock)
SELECT 'sku-' || n, 'Product ' || n, 100, 1
FROM generate_series({PRODUCTS + 1}, {ROWS}) AS n;
"""
DEPTHS = (0, 1_000, 10_000, 100_000, 900_000)
OFFSET = "SELECT id, sku FROM products ORDER BY id LIMIT 51 OFFSET %s"
KEYSET = "SELECT id, sku FROM products WHERE id > %s ORDER BY id LIMIT 51"
REQUESTS = 100_000
BATCHES = 10
TIMES = 7
STARTS = 3
# The one with the most tests.
LARGEST = "async-sqlalchemy-manual-unit_of_work"


def shop(made: Bench) -> Contender:
    """Return the shop with the default answers."""
    (place := made.folder / "shop").mkdir()
    return Contender(render(dict(DEFAULT), place), "app.main:app")


def processes() -> None:
    """Serve by several processes, which share the machine with PostgreSQL and us."""
    together()
    with bench() as made, ExitStack() as running:
        ours = shop(made)
        services = {
            str(count): Service(ours, made.database(), "--workers", str(count))
            for count in PROCESSES
        }
        for service in services.values():
            running.enter_context(service)
        measured = {
            workload: rounds(made, services, workload, CLIENTS)
            for workload in ("read", "create")
        }
        resident = {name: resident_of(each.pid) for name, each in services.items()}
    figures.store("growth", {"processes": measured, "processes_mib": resident})


def pools() -> None:
    """Serve with pools of several sizes."""
    before = alone()
    with bench() as made, ExitStack() as running:
        ours = shop(made)
        services = {
            str(size): Service(
                ours, made.database(), before=before, DATABASE_POOL_SIZE=size
            )
            for size in POOLS
        }
        for service in services.values():
            running.enter_context(service)
        measured = {
            workload: rounds(made, services, workload, CLIENTS)
            for workload in ("read", "create", "order")
        }
    figures.store("growth", {"pools": measured})


def rows() -> None:
    """Read pages at depth, and export everything, where there are a million rows."""
    before = alone()
    depth, export = {}, {}
    with bench(MANY_ROWS) as made:
        for io in OURS:
            (place := made.folder / io).mkdir()
            project = render(dict(VARIANTS[OURS[io]["sqlalchemy"]]), place)
            contender, url = Contender(project, "app.main:app"), made.database()
            with Service(
                contender, url, before=before, DATABASE_STREAM_TIMEOUT=0
            ) as service:
                base = f"http://127.0.0.1:{service.port}"
                with httpx2.Client(base_url=base, timeout=600) as client:
                    export[io] = export_of(client, service)
                    if io == "async":
                        depth = depth_of(client, url)
    figures.store("growth", {"depth": depth, "export": export})


def depth_of(client: httpx2.Client, url: str) -> dict[str, dict[str, float]]:
    """Return how many milliseconds a page takes by its depth, and in SQL alone."""
    found = {}
    with psycopg.connect(url, autocommit=True) as connection:

        def fetch(query: str, depth: int) -> None:
            connection.execute(query.encode(), (depth,)).fetchall()

        for depth in DEPTHS:
            found[str(depth)] = {
                "page": milliseconds(client.get, f"/products?offset={depth}"),
                "offset": milliseconds(fetch, OFFSET, depth),
                "keyset": milliseconds(fetch, KEYSET, depth),
            }
    return found


def milliseconds(call: Callable[..., object], *arguments: object) -> float:
    """Return the median time of some calls."""
    times = []
    for _ in range(TIMES):
        start = time.perf_counter()
        call(*arguments)
        times.append(time.perf_counter() - start)
    return round(median(times) * 1_000, 2)


def export_of(client: httpx2.Client, service: Service) -> dict[str, float]:
    """Return how fast all rows come, and what that costs."""
    client.get("/products/1")
    forget_peak(service.pid)
    before, used = memory(service.pid), processor_seconds(service.pid)
    start = time.perf_counter()
    lines = exported(client)
    seconds = time.perf_counter() - start
    used, after = processor_seconds(service.pid) - used, memory(service.pid)
    assert lines == ROWS, f"{lines} lines"
    return {
        "rows": lines,
        "seconds": round(seconds, 1),
        "service_seconds": round(used, 1),
        "mib_before": round(before["VmRSS"] / 1_024, 1),
        "mib_at_most": round(after["VmHWM"] / 1_024, 1),
    }


def endurance() -> None:
    """Ask a hundred thousand times, one in five a create, and look at the memory."""
    before = alone()
    resident: dict[str, list[float]] = {}
    with bench() as made:
        for io in OURS:
            ours = contenders(io, made.folder)["sqlalchemy"]
            with Service(ours, made.database(), before=before) as service:
                at = [resident_of(service.pid)]
                for _ in range(BATCHES):
                    each = REQUESTS // BATCHES
                    made.ask(service, "create", 16, each // 5)
                    made.ask(service, "read", 16, each - each // 5)
                    at.append(resident_of(service.pid))
            resident[io] = at
    figures.store("growth", {"endurance_mib": resident})


def resident_of(pid: int) -> float:
    """Return the memory of a process and its children, in MiB."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = memory(pid)["VmRSS"] / 1_024
    return round(own + sum(resident_of(int(child)) for child in children), 1)


def start() -> None:
    """Start services, ours and the peers, in turn."""
    before = alone()
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    with bench() as made:
        for io in OURS:
            url, all_of_them = made.database(), contenders(io, made.folder)
            found[io] = {name: {"seconds": [], "mib": []} for name in all_of_them}
            # Compiled once, as in production.
            cache: dict[str, Any] = {
                "PYTHONDONTWRITEBYTECODE": "",
                "PYTHONPYCACHEPREFIX": made.folder / "compiled",
            }
            for number in range(1 + STARTS):
                for name, contender in all_of_them.items():
                    with Service(contender, url, before=before, **cache) as service:
                        used = processor_seconds(service.pid)
                        resident = resident_of(service.pid)
                    if number:
                        found[io][name]["seconds"].append(round(used, 2))
                        found[io][name]["mib"].append(resident)
    figures.store("growth", {"start": found})


def rendering() -> None:
    """Render the template, and one with a single file, in turn."""
    together()
    taken: dict[str, list[float]] = {"template": [], "empty": []}
    with TemporaryDirectory() as name:
        folder = Path(name)
        empty = folder / "empty"
        (inside := empty / "{{cookiecutter.project_slug}}").mkdir(parents=True)
        (empty / "cookiecutter.json").write_text(json.dumps({"project_slug": "mine"}))
        (inside / "README.md").write_text("# {{ cookiecutter.project_slug }}\n")
        command = (
            *(sys.executable, "-m", "cookiecutter", "--no-input", "--config-file"),
            settings_in(folder),
        )
        for number in range(1 + STARTS):
            for what, template in {"template": ROOT, "empty": empty}.items():
                (place := folder / f"{what}-{number}").mkdir()
                begin = time.perf_counter()
                run(folder, *command, "--output-dir", place, template)
                if number:
                    taken[what].append(round(time.perf_counter() - begin, 2))
    figures.store("growth", {"rendering": taken})


def own_tests() -> None:
    """Run the tests that a rendered project brings along, on SQLite."""
    together()
    taken: list[float] = []
    passed = ""
    with TemporaryDirectory() as name:
        project = render(dict(VARIANTS[LARGEST]), Path(name))
        for _ in range(3):
            begin = time.perf_counter()
            said = run(project, sys.executable, "-m", "pytest", "-q")
            taken.append(round(time.perf_counter() - begin, 1))
            (passed,) = re.findall(r"(\d+) passed", said)
    figures.store("growth", {"own_tests": {"seconds": taken, "passed": int(passed)}})


# What docs/costs.md calls "as work grows", by the names of the parts.
GROWTH: dict[str, Callable[[], None]] = {
    "processes": processes,
    "pools": pools,
    "rows": rows,
    "endurance": endurance,
    "start": start,
    "rendering": rendering,
    "own-tests": own_tests,
}
