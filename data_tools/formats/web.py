"""Files on web servers; each answer is looked at before its bytes are given.

fsspec gives the loop and the session. Its own reader of web files takes what a server sends for
what it was asked for.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import fsspec
from fsspec.asyn import get_loop, sync

from data_tools.errors import InputError, MissingFileError
from data_tools.formats.location import Url
from data_tools.formats.transports import DOWNLOAD, PIECE, Part

CONNECT_SECONDS, SILENT_SECONDS, PART_SECONDS = 20, 30, 300
_REDIRECTS = 5
_PAUSES = (0.2, 1.0)
_BUSY = (429, 500, 502, 503, 504)
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)", re.ASCII)


class _Lost(Exception):  # noqa: N818 - never leaves this file
    """The connection broke, or the server was busy: asking again may help."""


class Web:
    """A file on a web server."""

    def __init__(self, url: Url) -> None:
        self._url = url

    def part(self, start: int, stop: int) -> Part:
        """Give the bytes from start to stop, fewer only where the file ends."""
        for pause in _PAUSES:
            with contextlib.suppress(_Lost):
                return self._once(start, stop)
            time.sleep(pause)
        try:
            return self._once(start, stop)
        except _Lost as lost:
            raise self._error(str(lost)) from None

    def pieces(self) -> Generator[bytes]:
        """Give all bytes in order, in pieces."""
        try:
            # Entered and left in the loop, whose work the steps of this generator are not.
            answer = AsyncExitStack()
            response = self._run(answer.enter_async_context, self._asked({}, None))
            try:
                self._run(self._check_whole, response)
                while piece := self._run(_piece, response):
                    yield piece
            finally:
                self._run(answer.aclose)
        except _Lost as lost:
            raise self._error(str(lost)) from None

    def _run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return sync(get_loop(), self._worded, work, *arguments)

    async def _worded(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do some work; what aiohttp says against it becomes an error without the address."""
        try:
            return await work(*arguments)
        except InputError:
            raise
        except aiohttp.ClientConnectorDNSError:
            raise self._error("no such host: check the URL, and the network") from None
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError):
            raise self._error("the server's certificate is not good: check the URL") from None
        except aiohttp.ClientConnectorError as err:
            what = os.strerror(err.os_error.errno) if err.os_error.errno else "no connection"
            raise self._error(f"cannot be reached: {what}: try again later") from None
        except aiohttp.TooManyRedirects:
            raise self._error("the server redirects without end: check the URL") from None
        except (aiohttp.RedirectClientError, aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise self._error("redirected to where no file is read from: check the URL") from None
        except TimeoutError:
            raise self._error("the server fell silent: try again later") from None
        except (aiohttp.ClientError, OSError):
            raise _Lost("the connection was lost: try again later") from None

    def _error(self, what: str, kind: type[InputError] = InputError) -> InputError:
        return kind(f"{self._url}: {what}")

    @asynccontextmanager
    async def _asked(self, headers: dict[str, str], seconds: float | None) -> AsyncIterator[Any]:
        """Ask for the file; give an answer that is neither an error nor from elsewhere."""
        session = await _session()
        timeout = aiohttp.ClientTimeout(
            total=seconds, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS
        )
        async with session.get(
            self._url.address, headers=headers, timeout=timeout, max_redirects=_REDIRECTS
        ) as response:
            hops = (*response.history, response)
            if self._url.scheme == "https" and any(r.url.scheme != "https" for r in hops):
                raise self._error("redirected from https:// to http://: check the URL")
            self._check_status(response.status)
            yield response

    def _check_status(self, status: int) -> None:
        if status in (404, 410):
            raise self._error(f"no such file ({status}): check the URL", MissingFileError)
        if status in (401, 403, 407):
            raise self._error(f"may not be read ({status}): ask for access, or {DOWNLOAD}")
        if status in _BUSY:
            raise _Lost(f"the server is out of order ({status}): try again later")
        if status not in (200, 206, 416):
            raise self._error(f"the server answers with status {status}: check the URL")

    def _once(self, start: int, stop: int) -> Part:
        part: Part = self._run(self._part, start, stop)
        return part

    async def _part(self, start: int, stop: int) -> Part:
        wanted = {"Range": f"bytes={start}-{stop - 1}"}
        async with self._asked(wanted, PART_SECONDS) as response:
            version, found = _version(response.headers), None
            if response.status != 200:
                found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            elif response.content_length == 0:
                return Part(b"", 0, version)
            else:
                raise self._error(f"the server gives no parts of files: {DOWNLOAD}")
            size = int(found[3]) if found else -1
            if response.status == 416 and found and start >= size:
                return Part(b"", size, version)
            stop = min(stop, size)
            if not found or (found[1], found[2]) != (str(start), str(stop - 1)):
                raise self._error(f"the server sends another part than was asked for: {DOWNLOAD}")
            # No more than one byte beyond, whatever the server goes on to send.
            data = bytearray()
            while piece := await response.content.read(stop - start + 1 - len(data)):
                data += piece
            if len(data) != stop - start:
                what = f"the server sends {len(data):,} bytes or more of {stop - start:,}"
                raise self._error(f"{what}: {DOWNLOAD}")
            return Part(bytes(data), size, version)

    async def _check_whole(self, response: Any) -> None:
        if response.status != 200:
            raise self._error(f"the server answers with status {response.status}: {DOWNLOAD}")
        chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        if response.content_length is None and not chunked:
            what = "the server does not say how long it is, so that a cut would not be seen"
            raise self._error(f"{what}: {DOWNLOAD}")


async def _piece(response: Any) -> bytes:
    parts, count = [], 0
    while count < PIECE and (part := await response.content.read(PIECE - count)):
        parts.append(part)
        count += len(part)
    return b"".join(parts)


def _version(headers: Any) -> str:
    if tag := headers.get("ETag"):
        return f"ETag {tag}"
    return f"Last-Modified {headers.get('Last-Modified', '')}"


_sessions: dict[int, Any] = {}
_inherited: list[Any] = []


async def _session() -> Any:
    """Give this process' session, which keeps connections open for the next request."""
    session = _sessions.get(os.getpid())
    if session is None:
        system = fsspec.filesystem(
            "http",
            asynchronous=True,
            skip_instance_cache=True,
            loop=asyncio.get_running_loop(),
            client_kwargs={
                # What is stored is read, not what a server makes of it on the way.
                "auto_decompress": False,
                "headers": {"Accept-Encoding": "identity"},
                "cookie_jar": aiohttp.DummyCookieJar(),
                "trust_env": True,
            },
        )
        session = _sessions[os.getpid()] = await system.set_session()
    return session


def _leave_to_the_parent() -> None:
    """Forget, without closing them, the connections that a forked process inherits.

    It has the parent's sockets and the parent's list of what to wait for: closing one here would
    leave the parent waiting for it.
    """
    for session in _sessions.values():
        getattr(session.connector, "_conns", {}).clear()
        _inherited.append(session.connector)
        session.detach()
        _inherited.append(session)
    _sessions.clear()


def _close() -> None:
    session = _sessions.pop(os.getpid(), None)
    if session is not None:
        with contextlib.suppress(Exception):
            sync(get_loop(), session.close, timeout=1)


os.register_at_fork(after_in_child=_leave_to_the_parent)
atexit.register(_close)
