"""A TLS proxy, like stunnel, for servers whose wheels were built without TLS."""

from __future__ import annotations

import asyncio
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import trustme

_SSL_REQUEST = 80877103  # how a Postgres client asks for TLS
_GSS_REQUEST = 80877104


class TlsFront:
    """Accepts TLS on a port of localhost and forwards to the unix socket `target`."""

    def __init__(self, authority: trustme.CA, target: Callable[[], str], *, is_postgres: bool = False) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self._context)
        self._target = target
        self._is_postgres = is_postgres
        self._serving: set[asyncio.Future[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _hang_up(self) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                if self._is_postgres and not await self._is_asked_for_tls(reader, writer):
                    return
                await writer.start_tls(self._context)
                behind_reader, behind_writer = await asyncio.open_unix_connection(self._target())
                await asyncio.gather(_pump(reader, behind_writer), _pump(behind_reader, writer))
        finally:
            writer.close()

    async def _is_asked_for_tls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        while True:
            _, code = struct.unpack("!II", await reader.readexactly(8))
            if code == _SSL_REQUEST:
                writer.write(b"S")
                return True
            if code != _GSS_REQUEST:
                return False  # no unencrypted connections
            writer.write(b"N")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@contextmanager
def tls_front(authority: trustme.CA, target: Callable[[], str], *, is_postgres: bool = False) -> Iterator[int]:
    """The port of the proxy."""
    front = TlsFront(authority, target, is_postgres=is_postgres)
    yield front.port
    front.stop()
