"""A cluster as people run it: PostgreSQL under Patroni, with etcd, and with HAProxy.

Its three nodes are on this machine, each with a Patroni of its own. Linux only.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.postgres import (
    PATIENCE,
    Cluster,
    PostgresError,
    Server,
    run_as,
    shared_memory,
    suspend,
    unprivileged_account,
)
from tests.service import wait_until

NODES = ("a", "b", "c")
# The shortest that Patroni accepts: a primary that says nothing is one for 20 seconds.
PACE = {"ttl": 20, "loop_wait": 1, "retry_timeout": 3}
PARAMETERS = {
    "dynamic_shared_memory_type": "mmap",
    "fsync": "off",
    "max_connections": 100,
    "shared_buffers": "32MB",
    "unix_socket_directories": "",
    "wal_keep_size": "256MB",
    "wal_receiver_status_interval": 1,
    "wal_retrieve_retry_interval": "100ms",
}
# https://patroni.readthedocs.io has this example.
HAPROXY = """
global
    maxconn 1000
defaults
    mode tcp
    retries 2
    timeout connect 4s
    timeout client 30m
    timeout server 30m
    timeout check 5s
"""
LISTEN = """
listen {role}
    bind 127.0.0.1:{port}
    option httpchk OPTIONS /{role}
    http-check expect status 200
    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
"""


def what_is_missing() -> str:
    """Return why there can be no cluster here, or nothing."""
    if sys.platform != "linux":
        return "the cluster is for Linux"
    if missing := [name for name in ("etcd", "haproxy") if not program(name)]:
        return f"{', '.join(missing)} not installed (apt: etcd-server, haproxy)"
    if not (find_spec("patroni") and find_spec("etcd")):
        return "patroni[etcd3] not installed"
    command = [*as_account(), sys.executable, "-m", "patroni", "--version"]
    try:
        subprocess.run(command, check=True, cwd="/", capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"Patroni cannot be run: {error}"
    return ""


def as_account() -> list[str]:
    """Return what runs a command as another account than root, and ends it with us.

    It may read what root may: our Python can be in a place that is root's alone.
    """
    command = ["setpriv", "--pdeathsig", "TERM"]
    if account := unprivileged_account():
        group = str(run_as(account)["group"])
        command += ["--reuid", account, "--regid", group, "--clear-groups"]
        command += ["--inh-caps", "+dac_read_search"]
        command += ["--ambient-caps", "+dac_read_search"]
    return command


def program(name: str) -> str | None:
    """Return the path of a program, if it is installed."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")


def ask(
    url: str, method: str = "GET", body: object = None, timeout: float = PATIENCE
) -> tuple[int, str]:
    """Return the status and the text that a program's interface answers, or 0."""
    data = json.dumps(body).encode() if body is not None else None
    try:
        with urlopen(Request(url, data, method=method), timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()
    except (OSError, HTTPException) as error:
        return 0, str(error)


def port_to_keep() -> int:
    """Return a port that nobody listens on, and that no connection gets by itself.

    A server that is away for a while finds it free again.
    """
    while True:
        port = secrets.choice(range(15_000, 32_000))
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def until(condition: Callable[[], object], what: str) -> None:
    """Wait as long as a cluster may need: it takes `ttl` to miss somebody, and more."""
    wait_until(condition, 90, what)


class Daemon:
    """A program of the cluster, with its files in a folder."""

    def __init__(self, name: str) -> None:
        """Make the folder, for the account that runs the program."""
        self.account = unprivileged_account()
        self.home = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=shared_memory()))
        if self.account:
            shutil.chown(self.home, self.account)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *command: str | Path) -> None:
        """Start the program; it ends when the thread that starts it does."""
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*as_account(), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
            )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the program, if it runs."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
        self._process = None

    def remove(self) -> None:
        """End the program and remove all that it has stored."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.home)


class Etcd(Daemon):
    """The consensus store: with one member, which is there or away."""

    def __init__(self) -> None:
        """Choose its ports."""
        super().__init__("etcd")
        self.port, self._peers = port_to_keep(), port_to_keep()

    def serve(self) -> None:
        """Start the store, or start it again, and return when it answers."""
        clients = f"http://127.0.0.1:{self.port}"
        peers = f"http://127.0.0.1:{self._peers}"
        self.start(
            program("etcd") or "etcd",
            *("--name", "only", "--data-dir", self.home / "data"),
            *("--listen-client-urls", clients, "--advertise-client-urls", clients),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", f"only={peers}"),
            *("--logger", "zap", "--log-level", "error"),
        )
        until(lambda: self._is_healthy(clients), "etcd")

    def _is_healthy(self, clients: str) -> bool:
        if self._process is not None and self._process.poll() is not None:
            said = (self.home / "log").read_text()
            raise PostgresError(f"etcd has ended: {said[-2_000:]}")
        # It may take a connection before it serves anybody.
        return ask(f"{clients}/health", timeout=1)[0] == 200


class Node(Cluster):
    """A PostgreSQL server, and the Patroni that starts, stops and promotes it."""

    def __init__(
        self, name: str, password: str, etcd: Etcd, pace: dict[str, Any]
    ) -> None:
        """Write the configuration; Patroni makes the data directory."""
        self.name = name
        self._given = password, etcd, pace
        super().__init__()

    @property
    def address(self) -> str:
        """Host and port of PostgreSQL."""
        return f"127.0.0.1:{self.port}"

    @property
    def ports(self) -> list[int]:
        """PostgreSQL's, and Patroni's."""
        return [self.port, self._api]

    @property
    def log(self) -> str:
        """What Patroni and PostgreSQL have said."""
        return self._log.read_text()

    def api(self, path: str, method: str = "GET", **body: Any) -> tuple[int, str]:
        """Ask Patroni; when asked for nothing but its state, it answers at once."""
        patience = 1 if method == "GET" else PATIENCE
        url = f"http://127.0.0.1:{self._api}{path}"
        return ask(url, method, None if method == "GET" else body, patience)

    def as_server(self) -> str:
        """Return HAProxy's line for this node."""
        return f"    server {self.name} {self.address} check port {self._api}\n"

    def start(self) -> None:
        """Start Patroni, which starts PostgreSQL, and return at once."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*as_account(), sys.executable, "-m", "patroni", self._config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
            )

    def pause(self) -> list[int]:
        """Stop all processes where they are; return PostgreSQL's, for `resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        first = self._first()
        return suspend(first) if first else []

    def resume(self, pids: list[int]) -> None:
        """Let all processes go on that were stopped."""
        assert self._process is not None
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        self._process.send_signal(signal.SIGCONT)

    def cut_power(self) -> None:
        """End all processes at one moment, with no time for anything."""
        for pid in reversed(self.pause()):
            os.kill(pid, signal.SIGKILL)
        self.stop(signal.SIGKILL)

    def restart(self) -> None:
        """Have PostgreSQL restarted, in order; return when it has been."""
        status, answer = self.api("/restart", "POST")
        if status != 200:
            raise PostgresError(answer)

    def processes(self, kind: str) -> list[int]:
        """Return processes of PostgreSQL's, by what `pg_stat_activity` calls them."""
        query = f"SELECT pid FROM pg_stat_activity WHERE backend_type = '{kind}'"
        return [int(pid) for (pid,) in Server(self.url).execute(query)]

    def remove(self) -> None:
        """End all processes and remove all that they have stored."""
        if self._process is not None:
            self.cut_power()
        shutil.rmtree(self.home)

    def _first(self) -> int | None:
        """Return PostgreSQL's first process, if it runs."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            return pid if str(self.data).encode() in command else None
        return None

    def _initialise(self) -> None:
        self._password, etcd, pace = self._given
        self.port, self._api = port_to_keep(), port_to_keep()
        self._config = self.home / "patroni.json"
        self._config.touch(mode=0o600)
        self._config.write_text(json.dumps(self._configuration(etcd, pace), indent=2))
        self._give_away(self._config)

    def _configuration(self, etcd: Etcd, pace: dict[str, Any]) -> dict[str, Any]:
        """Return Patroni's configuration; JSON is YAML."""
        api = f"127.0.0.1:{self._api}"
        locale = [each.removeprefix("--") for each in self._locale()]
        accounts = {
            "superuser": {"username": "postgres", "password": self._password},
            "replication": {"username": "replicator", "password": self._password},
        }
        return {
            "scope": "shop",
            "name": self.name,
            "restapi": {"listen": api, "connect_address": api},
            "etcd3": {"host": f"127.0.0.1:{etcd.port}"},
            "bootstrap": {
                "dcs": pace
                | {"postgresql": {"use_pg_rewind": True, "parameters": PARAMETERS}},
                "initdb": [
                    *("no-sync", {"encoding": "UTF8"}),
                    *(
                        dict([each.split("=")]) if "=" in each else each
                        for each in locale
                    ),
                ],
            },
            "postgresql": {
                "listen": self.address,
                "connect_address": self.address,
                "data_dir": str(self.data),
                "bin_dir": str(self.programs),
                "pgpass": str(self.home / "pgpass"),
                "authentication": accounts,
                "basebackup": ["no-sync", {"checkpoint": "fast"}],
                "pg_hba": [
                    "host all all 127.0.0.1/32 scram-sha-256",
                    "host replication all 127.0.0.1/32 scram-sha-256",
                ],
            },
        }


class Patroni:
    """Three nodes, of which Patroni makes one the primary, and HAProxy before them."""

    def __init__(self, **pace: Any) -> None:
        """Take Patroni's settings, such as `synchronous_mode`; entering starts all."""
        self._pace = PACE | pace
        self._password = secrets.token_urlsafe(16)
        self._way_in, self._way_to_read = port_to_keep(), port_to_keep()
        self._stack = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """The superuser's URL that names all nodes, and means the primary."""
        hosts = ",".join(node.address for node in self.nodes)
        return f"{self.url_at(hosts)}?target_session_attrs=read-write"

    @property
    def replica_url(self) -> str:
        """The superuser's URL that names all nodes, and means a standby if possible."""
        hosts = ",".join(node.address for node in self.nodes)
        return f"{self.url_at(hosts)}?target_session_attrs=prefer-standby"

    @property
    def proxy_url(self) -> str:
        """The superuser's URL of HAProxy, which passes on to the primary."""
        return self.url_at(f"127.0.0.1:{self._way_in}")

    @property
    def proxy_replica_url(self) -> str:
        """The superuser's URL of HAProxy, which passes on to the standbys."""
        return self.url_at(f"127.0.0.1:{self._way_to_read}")

    def url_at(self, address: str) -> str:
        """Return the superuser's URL at an address."""
        return f"postgresql://postgres:{self._password}@{address}/postgres"

    def members(self) -> list[dict[str, Any]]:
        """Return what Patroni says of all nodes, or nothing."""
        for node in self.nodes:
            status, body = node.api("/cluster")
            if status == 200:
                members: list[dict[str, Any]] = json.loads(body)["members"]
                return members
        return []

    def is_whole(self) -> bool:
        """Whether one node is the primary, and all others follow it."""
        found = [(each["role"], each["state"]) for each in self.members()]
        standby = "sync_standby" if self._pace.get("synchronous_mode") else "replica"
        return sorted(found) == sorted(
            [
                ("leader", "running"),
                (standby, "streaming"),
                *[("replica", "streaming")] * (len(NODES) - 2),
            ]
        )

    def primary(self) -> Node:
        """Return the node that is the primary, as soon as there is one."""

        def primaries() -> list[Node]:
            return [each for each in self.nodes if each.api("/primary")[0] == 200]

        until(primaries, "a primary")
        return primaries()[0]

    def standbys(self) -> list[Node]:
        """Return the other nodes."""
        primary = self.primary()
        return [node for node in self.nodes if node is not primary]

    def switch_over(self) -> None:
        """Have the primary hand over to a standby, as planned; return when it has."""
        primary = self.primary()
        until(self.is_whole, "nodes that follow")
        status, answer = primary.api("/switchover", "POST", leader=primary.name)
        if status != 200:
            raise PostgresError(answer)

    def catch_up(self) -> None:
        """Return when what the primary has written by now can be read on all nodes."""
        [(written,)] = Server(self.url).execute("SELECT pg_current_wal_lsn()")
        # A row when it has arrived.
        arrived = f"SELECT 1 WHERE pg_last_wal_replay_lsn() >= '{written}'"
        for node in self.standbys():
            until(partial(Server(node.url).execute, arrived), f"{written} to arrive")

    def configure(self, **settings: Any) -> None:
        """Change settings of Patroni's, for all nodes."""
        status, answer = self.nodes[0].api("/config", "PATCH", **settings)
        if status != 200:
            raise PostgresError(answer)
        self._pace |= settings

    def __enter__(self) -> Self:
        """Start everything, and return when all nodes follow the primary."""
        with contextlib.ExitStack() as stack:
            self.etcd = Etcd()
            stack.callback(self.etcd.remove)
            self.etcd.serve()
            self.nodes: list[Node] = []
            for name in NODES:
                node = Node(name, self._password, self.etcd, self._pace)
                stack.callback(node.remove)
                self.nodes.append(node)
                node.start()
            stack.callback(self._start_haproxy().remove)
            try:
                until(self.is_whole, "nodes that follow")
            except AssertionError as error:
                error.add_note("\n".join(node.log[-3000:] for node in self.nodes))
                raise
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop and remove everything."""
        self._stack.close()

    def _start_haproxy(self) -> Daemon:
        haproxy = Daemon("haproxy")
        config = haproxy.home / "config"
        servers = "".join(node.as_server() for node in self.nodes)
        ways = {"primary": self._way_in, "replica": self._way_to_read}
        listeners = [
            LISTEN.format(role=role, port=port) + servers for role, port in ways.items()
        ]
        config.write_text(HAPROXY + "".join(listeners))
        haproxy.start(program("haproxy") or "haproxy", "-db", "-f", config)
        return haproxy
