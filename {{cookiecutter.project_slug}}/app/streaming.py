"""Responses of any length: complete, or visibly cut."""

{% if cookiecutter.io == 'async' %}
from asyncio import create_task, wait
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from anyio import CancelScope
{% else %}
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from anyio import CancelScope, fail_after, to_thread
{% endif %}
from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Send

from app.problems import ProblemError
from app.routing import get_database


class TooOldError(ProblemError):
    """The client speaks a version of HTTP that cannot carry the response."""

    status = HTTPStatus.HTTP_VERSION_NOT_SUPPORTED


class JsonLines(StreamingResponse):
    """A stream of JSON objects, one a line, that ends within DATABASE_STREAM_TIMEOUT.

    After an error, or the timeout, the connection is cut without the final chunk: a
    complete body is complete data.
    """

    media_type = "application/x-ndjson"

{% if cookiecutter.io == 'async' %}
    def __init__(
        self, request: Request, lines: AsyncIterator[str], status_code: int = 200
    ) -> None:
{% else %}
    def __init__(
        self, request: Request, lines: Iterator[str], status_code: int = 200
    ) -> None:
{% endif %}
        """Send what the generator `lines` yields; that may be many lines at a time.

        Raises `TooOldError` for HTTP/1.0, whose clients cannot tell the end from a cut.
        """
        if request.scope["http_version"] == "1.0":
            raise TooOldError("Streams need HTTP/1.1: with 1.0, a cut looks complete.")
        super().__init__(lines, status_code)
        self.generator: Any = lines
        self.timeout = get_database(request).stream_timeout

    async def stream_response(self, send: Send) -> None:
        """Send everything, or raise `TimeoutError`; then give the connection back."""
{% if cookiecutter.io == 'async' %}
        # Task groups cancel at every await, which would interrupt returning the
        # connection; a separate task is cancelled once.
        sending = create_task(super().stream_response(send))
        try:
            done, _ = await wait({sending}, timeout=self.timeout or None)
            if not done:
                raise TimeoutError("the stream took longer than its timeout")
            await sending
        finally:
            sending.cancel()
            with CancelScope(shield=True):
                await wait({sending})
                await self.generator.aclose()
{% else %}
        try:
            with fail_after(self.timeout or None):
                await super().stream_response(send)
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(self.generator.close)
{% endif %}
