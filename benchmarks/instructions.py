"""How many instructions a request takes in a service, by Valgrind's callgrind.

Unlike times, they hardly depend on what else the machine does. What PostgreSQL does is
not in it, nor what the kernel does; and no instruction says how long it took. Nor is
Python's garbage collector in it: one run of it among so few requests would weigh more
than what is compared.

The same, with a guard of the shop taken out, says what that guard costs.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import figures
from benchmarks.serving import Bench, Contender, Service, bench, contenders
from benchmarks.workloads import WORKLOADS
from tests.template import DEFAULT, render

CLIENTS = 16
WARM_UP = 96
REQUESTS = 160
PATIENCE = 300

# File, what is there, what is put there instead.
Change = tuple[str, str, str]
DATABASE, ENGINE = "app/db/database.py", "app/db/engine.py"
SESSION, MAIN = "app/db/session.py", "app/main.py"
# What each guard is for, and how to take it out of the shop with the default answers.
GUARDS: dict[str, tuple[str, list[Change]]] = {
    "admission": (
        "waiting for a slot before a connection, and not for ever",
        [
            (
                "app/dependencies.py",
                "database.read_admission, database.read()",
                "database.read()",
            ),
            (
                "app/transaction.py",
                "async with admission, _transaction_of",
                "async with _transaction_of",
            ),
        ],
    ),
    "request-id": (
        "an id in the response and in every line of the log, and an access line",
        [(MAIN, "    app.add_middleware(RequestMiddleware)\n", "")],
    ),
    "middleware": (
        "a limit for bodies, and a response where nothing else responds",
        [
            (
                MAIN,
                "    app.add_middleware(RequestBodyLimitMiddleware, "
                "max_body_size=settings.max_body_size)\n",
                "",
            ),
            (
                MAIN,
                "    app.add_middleware(ErrorMiddleware, "
                "max_body_size=settings.max_body_size)\n",
                "",
            ),
        ],
    ),
    "connections": (
        "replacing a connection that died in the pool, or was changed",
        [(ENGINE, "    watch_connections(engine.sync_engine, settings)\n", "")],
    ),
    "changes": (
        "noticing changes that nobody committed, and reading again what a savepoint "
        "took back",
        [
            (DATABASE, "        notice_changes(self.write_engine.sync_engine)\n", ""),
            (SESSION, "\nfollow_changes(ReadSession.sync_session_class)\n", "\n"),
        ],
    ),
    "transactions": (
        "noticing a COMMIT that saved nothing, or whose outcome nobody knows",
        [
            (
                ENGINE,
                "        classify_read_errors(engine.sync_engine)\n",
                "        pass\n",
            ),
            (
                ENGINE,
                "        classify_transaction_errors(engine.sync_engine)\n",
                "        pass\n",
            ),
        ],
    ),
    "schema": (
        "running a statement again that a migration has made invalid",
        [
            (
                ENGINE,
                "        survive_schema_changes(engine.sync_engine)\n",
                "        pass\n",
            )
        ],
    ),
    "statements": (
        "refusing lazy loads, and a second statement of a session for one",
        [
            (
                SESSION,
                '@event.listens_for(ReadSession.sync_session_class, "do_orm_execute")',
                "",
            )
        ],
    ),
    "sessions": (
        "refusing a second session of a request, and one that is used after its end",
        [
            (SESSION, "        held = _entered.get()\n", "        held = None\n"),
            (SESSION, "        _entered.set(self)\n", ""),
            (
                SESSION,
                '@event.listens_for(ReadSession.sync_session_class, "after_begin")',
                "",
            ),
        ],
    ),
    "status": (
        "saving nothing when an error response is returned",
        [
            ("app/transaction.py", "if status_of(request) < 400:", "if True:"),
            ("app/routing.py", "route_class=Route", "route_class=APIRoute"),
            ("app/dependencies.py", "not isinstance(original, Route)", "False"),
        ],
    ),
    "one-trip": (
        "reading without BEGIN and ROLLBACK",
        [(DATABASE, '= {"isolation_level": "AUTOCOMMIT"}', "= {}")],
    ),
}
WATCHING = (
    *("connections", "changes", "transactions", "schema", "statements", "sessions"),
)
GUARDS["watching"] = (
    f"{len(WATCHING)} of these at once, which watch over sessions, connections and "
    "statements",
    [change for each in WATCHING for change in GUARDS[each][1]],
)
NONE = "none"


def count(
    made: Bench, contender: Contender, *workloads: str, clients: int = CLIENTS
) -> dict[str, int]:
    """Return the thousands of instructions that a request of each workload takes."""
    found = {}
    with TemporaryDirectory() as folder:
        # Python runs a module of this name, where it finds one, when it starts.
        disabling = Path(folder) / "sitecustomize.py"
        disabling.write_text("import gc\n\ngc.disable()\n", encoding="utf-8")
        before = (
            *("valgrind", "--tool=callgrind", "--instr-atstart=no"),
            f"--callgrind-out-file={folder}/out",
        )
        service = Service(
            contender,
            made.database(),
            before=before,
            patience=PATIENCE,
            PYTHONPATH=folder,
            PYTHONHASHSEED=0,
        )
        with service:
            for workload in workloads:
                made.ask(service, workload, clients, WARM_UP)
                control(service, "--instr=on")
                control(service, "--zero")
                made.ask(service, workload, clients, REQUESTS)
                control(service, "--dump")
                control(service, "--instr=off")
                found[workload] = round(instructions(Path(folder)) / REQUESTS / 1_000)
    return found


def control(service: Service, what: str) -> None:
    """Tell the service's callgrind."""
    command = ["callgrind_control", what, str(service.pid)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def instructions(folder: Path) -> int:
    """Return how many the dumps in a folder have counted, and remove these."""
    counted = 0
    for dump in folder.glob("out*"):
        text = dump.read_text(errors="replace")
        if total := re.search(r"^(?:summary|totals): (\d+)", text, re.M):
            counted += int(total[1])
        dump.unlink()
    assert counted
    return counted


def instructions_of(io: str, name: str) -> None:
    """Count, for a shop or a peer of this `io`, and store the figures."""
    with bench() as made:
        contender = contenders(io, made.folder)[name]
        counted = count(made, contender, *WORKLOADS)
    print(f"{io} {name}: {counted} thousand instructions a request")
    stored = figures.read("instructions").get(io, {})
    figures.store("instructions", {io: stored | {name: counted}})


def without(guard: str, project: Path) -> dict[Path, str]:
    """Return the files of a project that have to change to take a guard out.

    Raises `AssertionError` if they are not as they were when this was written.
    """
    changed: dict[Path, str] = {}
    for file, there, instead in GUARDS[guard][1]:
        path = project / file
        text = changed.get(path) or path.read_text(encoding="utf-8")
        assert text.count(there) == 1, f"{file} has changed: {there!r}"
        changed[path] = text.replace(there, instead)
    return changed


def count_without(guard: str) -> None:
    """Count with one of the guards taken out, or with all, and store the figures."""
    with bench() as made:
        (place := made.folder / "guarded").mkdir()
        project = render(dict(DEFAULT), place)
        if guard != NONE:
            for path, text in without(guard, project).items():
                path.write_text(text, encoding="utf-8")
        contender = Contender(project, "app.main:app")
        # One client, since a guard costs less than it matters who waits for whom.
        counted = count(made, contender, "read", "create", clients=1)
    print(f"without {guard}: {counted} thousand instructions a request")
    figures.store("guards", {guard: counted})
