"""A file server on this machine that drops, forgets and lies on demand, for the tests of downloads."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server has and how it behaves; the ``requests`` it got, as their path and headers."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etag: str = '"one"'
    modified: str = ""
    drop_after: list[int] = field(default_factory=list)  # bytes of the body of the next answers
    status: list[int] = field(default_factory=list)  # of the next answers, in place of a file
    shift: int = 0  # sends a range from a wrong place
    obeys_if_range: bool = True
    chunked: bool = False
    stall_after: int | None = None  # bytes of the body, then silence until the other side goes
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0

    def asked(self, header: str) -> list[str | None]:
        return [headers.get(header) for _, headers in self.requests]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:  # noqa: N802 (the standard library's name)
        site = self.site
        site.requests.append((self.path, dict(self.headers.items())))
        if site.status and (status := site.status.pop(0)) != 200:
            return self._answer(status, {}, b"")
        body = site.files.get(self.path.lstrip("/"))
        if body is None:
            return self._answer(404, {}, b"")
        headers = {"ETag": site.etag, "Last-Modified": site.modified}
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, site.etag, site.modified) or not site.obeys_if_range
        if not (asked and site.ranges and same):
            return self._answer(200, headers, body)
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            return self._answer(416, {"Content-Range": f"bytes */{len(body)}"}, b"")
        start -= site.shift
        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self._answer(206, headers, body[start:])

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        if self.site.chunked and body:
            self.send_header("Transfer-Encoding", "chunked")
            whole, body = len(body), b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        else:
            self.send_header("Content-Length", str(len(body)))
            whole = len(body)
        self.end_headers()
        drop = self.site.drop_after.pop(0) if self.site.drop_after and status in (200, 206) else None
        if self.site.stall_after is not None:
            self.wfile.write(body[: self.site.stall_after])
            self.connection.recv(1)
            self.close_connection = True
            return
        self.site.sent += whole if drop is None else min(drop, whole)  # before: whoever has it all may ask at once
        self.wfile.write(body[:drop])
        if drop is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def serve() -> Iterator[Site]:
    """Run a server on a free port of 127.0.0.1 in a thread of this process."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    site = Site(f"http://127.0.0.1:{server.server_address[1]}/")
    handler.site = site  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
