"""A rendered project at work: its commands, and the service as a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from httpx2 import Client, Limits

PATIENCE = 60.0
MIGRATE = (sys.executable, "-m", "alembic", "upgrade", "head")
UVICORN = (sys.executable, "-m", "uvicorn", "app.main:app")
BASH = ("bash", "-euo", "pipefail", "-c")
# Where a shell finds what is installed beside us.
PROGRAMS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
# What our own environment must not decide for a project.
THEIRS = (
    *("CORS_", "DATABASE_", "ENVIRONMENT", "FASTAPI_", "LOG_", "MAX_", "OTEL_"),
    *("SECRET_", "TOKEN_"),
    *("ALEMBIC_", "MYPY", "PYTEST_", "PYTHON", "TEST_", "UVICORN_", "VIRTUAL_ENV"),
)


def environment_with(**settings: object) -> dict[str, str]:
    """Return the environment for a project's command, with nothing set but that.

    Nothing is written beside the sources: renderings stay as they were rendered.
    """
    ours = {key: val for key, val in os.environ.items() if not key.startswith(THEIRS)}
    defaults = {
        "PYTHONDONTWRITEBYTECODE": 1,
        "PYTHONUTF8": 1,
        # A test that hangs ends, as it does in a project's CI.
        "PYTEST_ADDOPTS": "-o faulthandler_exit_on_timeout=true",
        # A project has this plugin; to load all of ours would take each pytest 1 s.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": 1,
        "PYTEST_PLUGINS": "anyio.pytest_plugin",
    }
    return ours | {name: str(value) for name, value in (defaults | settings).items()}


def run(folder: Path, *command: str | Path, **settings: object) -> str:
    """Return what a command in a folder says; it has to succeed."""
    ended = subprocess.run(
        command,
        cwd=folder,
        env=environment_with(**settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert ended.returncode == 0, ended.stdout[-4000:]
    return ended.stdout


def wait_until(
    condition: Callable[[], object], patience: float = PATIENCE, what: str = "this"
) -> None:
    """Return as soon as the condition holds; it has to before the patience ends."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


class Service:
    """A project that is served by a command, on a free port of this machine."""

    ended_by = signal.SIGINT  # as by Ctrl+C

    def __init__(
        self,
        folder: Path,
        *command: str | Path,
        patience: float = PATIENCE,
        **settings: object,
    ) -> None:
        """Take what to run where, with which settings; entering starts it."""
        self.url = ""
        self._folder = folder
        self._command = command or UVICORN
        self._patience = patience
        self._settings = {"UVICORN_PORT": 0} | settings
        self._clients = contextlib.ExitStack()

    @property
    def log(self) -> str:
        """All that the service has said so far."""
        return Path(self._log.name).read_text(encoding="utf-8")

    @property
    def pid(self) -> int:
        """The process that the command was started as."""
        return self._process.pid

    def client(self, token: str = "") -> Client:
        """Return a client with connections of its own, as many as it needs.

        With a token it is signed in.
        """
        options: dict[str, Any] = {"timeout": PATIENCE, "trust_env": False}
        if token:
            options["headers"] = {"Authorization": f"Bearer {token}"}
        # No connection is used again when uvicorn, after five seconds, may close it.
        limits = Limits(keepalive_expiry=2)
        client = Client(base_url=self.url, limits=limits, **options)
        return self._clients.enter_context(client)

    def signal(self, which: signal.Signals) -> None:
        """Send a signal to the command and to all that it has started."""
        os.killpg(self._process.pid, which)

    def wait(self) -> int:
        """Return the exit code as soon as the process has ended."""
        return self._process.wait(PATIENCE)

    def __enter__(self) -> Self:
        """Start the service, and return when it is ready."""
        self._log = tempfile.NamedTemporaryFile()
        self._process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            env=environment_with(**self._settings),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        try:
            wait_until(self._has_spoken_or_ended, self._patience)
            assert self.url, self.log[-4000:]
            ready = self.client().get("/health/ready")
            assert ready.status_code == 200, ready.text + self.log[-4000:]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the service, if it still runs."""
        self._clients.close()
        try:
            if self._process.poll() is None:
                self.signal(self.ended_by)
            self.wait()
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.wait()
            raise
        finally:
            self._log.close()

    def _has_spoken_or_ended(self) -> bool:
        if self._process.poll() is not None:
            return True
        log = self.log
        if spoken := re.search(r"Uvicorn running on (http://\S+)", log):
            self.url = spoken[1]
        # Where there are several workers, that is said before one of them listens.
        workers = int(str(self._settings.get("UVICORN_WORKERS", 0)))
        return bool(self.url) and log.count("startup complete") >= workers
