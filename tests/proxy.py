"""A proxy in front of a server that counts the round trips of its clients."""

from __future__ import annotations

import asyncio
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Self
from urllib.parse import urlsplit

from httpx2 import Response


class Proxy:
    """Passes bytes on; a round trip begins when a client speaks after the server."""

    def __init__(self, url: str) -> None:
        """Take the URL of the database behind it; `url` is then the way through it."""
        self.url = ""
        # A connection ends where one side would say this, and the other never hears it.
        self.unsaid = b""
        self._behind = urlsplit(url)
        self._round_trips = 0
        self._lock = threading.Lock()
        self._open: Future[tuple[int, asyncio.AbstractEventLoop]] = Future()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    @property
    def round_trips(self) -> int:
        """How many round trips all clients have begun since the last reset."""
        with self._lock:
            return self._round_trips

    def reset(self) -> None:
        """Count from zero again."""
        with self._lock:
            self._round_trips = 0

    def count(self, ask: Callable[[], Response], times: int) -> int:
        """Return how many round trips so many successful requests take.

        As many are asked before, so that all statements are prepared.
        """
        for _ in range(times):
            ask()
        self.reset()
        for _ in range(times):
            response = ask()
            assert response.is_success, response.text
        return self.round_trips

    def __enter__(self) -> Self:
        """Take connections on a free port."""
        self._thread.start()
        port, self._loop = self._open.result()
        account = self._behind.netloc.rpartition("@")[0]
        self.url = self._behind._replace(netloc=f"{account}@127.0.0.1:{port}").geturl()
        return self

    def __exit__(self, *_: object) -> None:
        """Cut all connections and take no more."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def lead_to(self, url: str) -> None:
        """Pass new connections on to another server; open ones stay where they are."""
        self._behind = urlsplit(url)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self._open.set_result((port, asyncio.get_running_loop()))
        await self._end.wait()
        server.close()

    async def _relay(self, client: StreamReader, to_client: StreamWriter) -> None:
        server_spoke = True

        def client_speaks() -> None:
            nonlocal server_spoke
            if server_spoke:
                server_spoke = False
                with self._lock:
                    self._round_trips += 1

        def server_speaks() -> None:
            nonlocal server_spoke
            server_spoke = True

        try:
            server, to_server = await asyncio.open_connection(
                self._behind.hostname, self._behind.port or 5432
            )
        except OSError:
            to_client.close()
            return
        await asyncio.gather(
            self._pass_on(client, to_server, client_speaks),
            self._pass_on(server, to_client, server_speaks),
        )

    async def _pass_on(
        self, source: StreamReader, target: StreamWriter, speaks: Callable[[], None]
    ) -> None:
        try:
            while data := await source.read(2**16):
                if self.unsaid and self.unsaid in data:
                    break
                speaks()
                target.write(data)
                await target.drain()
        except OSError:
            pass  # One side has gone: the other is told so below.
        finally:
            target.close()
