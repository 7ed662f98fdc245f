"""PgBouncer in front of a server: each transaction gets one of a few connections."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

import psycopg

from tests.postgres import PATIENCE, free_port, guard, run_as, unprivileged_account

# By default it refuses clients that send parameters of a session on connecting.
CONFIG = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = plain
auth_file = {accounts}
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 300
"""


def program() -> str | None:
    """Return the path of PgBouncer, if it is installed."""
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


class PgBouncer:
    """A pooler in transaction mode that is a child of this process."""

    def __init__(self, url: str, pool_size: int) -> None:
        """Take a server's URL, and how many connections a database of it may get."""
        self._behind = urlsplit(url)
        self._pool_size = pool_size
        self._port = free_port()

    def way_to(self, url: str) -> str:
        """Return the URL by which the pooler leads to a database of the server."""
        account = self._behind.netloc.rpartition("@")[0]
        netloc = f"{account}@127.0.0.1:{self._port}"
        return urlsplit(url)._replace(netloc=netloc).geturl()

    @property
    def log(self) -> str:
        """All that the pooler has said so far."""
        return self._log.read_text()

    def __enter__(self) -> Self:
        """Start the pooler and return when a connection can be made through it."""
        self._home = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        try:
            self._start()
        except BaseException:
            shutil.rmtree(self._home)
            raise
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                psycopg.connect(self.way_to(self._behind.geturl())).close()
            except psycopg.OperationalError as error:
                if self._process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                error.add_note(self.log)
                self.__exit__()
                raise
            return self

    def __exit__(self, *_: object) -> None:
        """Stop the pooler at once: it keeps nothing."""
        self._process.kill()
        self._process.wait(PATIENCE)
        shutil.rmtree(self._home)

    def _start(self) -> None:
        self._log = self._home / "log"
        accounts, config = self._home / "accounts", self._home / "config"
        user, password = self._behind.username, self._behind.password
        names = [unquote(each or "").replace('"', '""') for each in (user, password)]
        accounts.write_text('"{}" "{}"\n'.format(*names))
        config.write_text(
            CONFIG.format(
                host=self._behind.hostname,
                port=self._behind.port or 5432,
                listen_port=self._port,
                accounts=accounts,
                pool_size=self._pool_size,
            )
        )
        # Like PostgreSQL, it does not run as root.
        account = unprivileged_account()
        if account:
            for path in (self._home, accounts, config):
                shutil.chown(path, account)
        identity = {"cwd": self._home, **run_as(account)}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*guard(identity), program() or "pgbouncer", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **identity,
            )
