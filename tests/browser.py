"""The site as a reader has it: built once for all tests, in the system's browser."""

from __future__ import annotations

import functools
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

from docs.site.build import build
from tests.service import wait_until

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def program() -> str | None:
    """Return the path of the system's Chromium, if it is installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def build_once(shelf: Path) -> Path:
    """Return the built site; the first process that asks builds it for all."""
    place = shelf / "site"
    try:
        (shelf / "building").mkdir()
    except FileExistsError:
        wait_until(place.exists)
    else:
        build(shelf / "building" / "site")
        (shelf / "building" / "site").rename(place)
    return place


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder; the address ends with a slash."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def browser() -> Iterator[Browser]:
    """Start the system's Chromium, without a window."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program())
        yield started
        started.close()


class Reader:
    """Reads the site in a window of its own, and notes whatever goes wrong."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        """Open a page of the context; addresses are relative to the site's."""
        self.page: Page = context.new_page()
        self.faults: list[str] = []
        self.loaded: list[str] = []
        self._address = address
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self._on_request(request.url))
        self.page.on("requestfailed", self._on_failure)

    def open(self, path: str) -> Page:
        """Go to a page of the site, and wait until it is drawn."""
        self.loaded.clear()
        self.page.goto(self._address + path)
        if re.match(r"explorer\.html", path):
            self.page.wait_for_selector("#lines pre", state="attached")
        return self.page

    def _on_console(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.faults.append(message.text)

    def _on_failure(self, request: Request) -> None:
        # Who goes on to another page does not wait for what this one still loads.
        if request.failure != "net::ERR_ABORTED":
            self.faults.append(f"no {request.url}: {request.failure}")

    def _on_request(self, url: str) -> None:
        self.loaded.append(url)
        ours, theirs = urlsplit(self._address), urlsplit(url)
        if theirs.scheme != "data" and (ours.scheme, ours.netloc) != theirs[:2]:
            self.faults.append(f"a request to {url}")


def shelf_of(basetemp: Path) -> Path:
    """Return the folder that all processes of a test session share."""
    return basetemp.parent if "PYTEST_XDIST_WORKER" in os.environ else basetemp
