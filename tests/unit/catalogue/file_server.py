"""A web server that serves given content, supports Range, and breaks off transfers on request."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Reply:
    """The response for a path."""

    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True)
class Asked:
    """A received request: its method, its path and the first byte it asks for."""

    method: str
    path: str
    start: int | None


class FileServer:
    """A context manager. `breaks`: the number of bytes after which the next transfer of a path is broken off, once."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.breaks: dict[str, int] = {}
        self.asked: list[Asked] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self)

            def do_HEAD(self) -> None:
                outer._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def gets(self, path: str) -> list[Asked]:
        """The GET requests for a path, in order."""
        return [asked for asked in self.asked if asked.method == "GET" and asked.path == path]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(handler.path).path)
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else None
        self.asked.append(Asked(handler.command, path, start))
        reply = self.replies.get(path, Reply(status=404))
        body = reply.body[start or 0 :]
        handler.send_response(206 if start is not None and reply.status == 200 else reply.status)
        headers = {"Content-Length": str(len(body)), "Accept-Ranges": "bytes", **reply.headers}
        if start is not None:
            headers["Content-Range"] = f"bytes {start}-{len(reply.body) - 1}/{len(reply.body)}"
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        broken_at = self.breaks.pop(path, None)
        handler.wfile.write(body[:broken_at])
        handler.close_connection = handler.close_connection or broken_at is not None
