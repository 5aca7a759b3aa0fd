"""A server on this machine that lends files, and does what a test wants it to do wrong."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ASIS = -1
"""The length that is true."""


@dataclass(frozen=True)
class Answer:
    """How one request is answered; by default rightly.

    ``cut``: close after so many bytes. ``stall``: send so many, then nothing. ``length``: what Content-Length
    says (None: nothing). ``sent``: other contents; ``whole``: the size that Content-Range says. ``piece``: a
    Content-Range of its own. ``ranges``, ``if_range``: whether Range and If-Range are heeded.
    """

    status: int = 200
    cut: int | None = None
    stall: int | None = None
    length: int | None = ASIS
    sent: bytes | None = None
    whole: int | None = None
    piece: str = ""
    ranges: bool = True
    if_range: bool = True
    tag: str | None = None
    date: str = ""
    encoding: str = ""


@dataclass
class Library:
    """Files by name, answers by name (used up one a request), and what was asked: name, Range, If-Range."""

    address: str
    server: ThreadingHTTPServer
    files: dict[str, bytes] = field(default_factory=dict)
    plan: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    num_sent: int = 0
    closing: threading.Event = field(default_factory=threading.Event)

    @staticmethod
    def tag(contents: bytes) -> str:
        return f'"{hashlib.md5(contents).hexdigest()}"'

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def open_library() -> Iterator[Library]:
    """Run a library in a thread."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.library = library = Library(f"http://127.0.0.1:{server.server_port}/data", server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield library
    finally:
        library.close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    library: Library

    def handle_error(self, request, client_address) -> None:
        """Readers that go away early are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, format, *args) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        library, name = self.server.library, self.path.rpartition("/")[2]
        headers: Message = self.headers
        wanted, condition = headers.get("Range", ""), headers.get("If-Range", "")
        library.asked.append((name, wanted, condition))
        plan = library.plan.get(name, [])
        answer = plan.pop(0) if plan else Answer()
        if answer.status != 200 or name not in library.files:
            return self.send_error(answer.status if answer.status != 200 else 404)
        contents = library.files[name] if answer.sent is None else answer.sent
        tag = library.tag(contents) if answer.tag is None else answer.tag
        fresh = not condition or not answer.if_range or condition in (tag, answer.date)
        first = int(wanted[6:-1]) if wanted and answer.ranges and fresh else 0
        whole = answer.whole or len(contents)
        if first and first >= whole:
            return self.send_error(416)
        body = contents[first:]
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", answer.piece or f"bytes {first}-{whole - 1}/{whole}")
        if answer.length is not None:
            self.send_header("Content-Length", str(len(body) if answer.length == ASIS else answer.length))
        for header, value in (
            ("ETag", tag),
            ("Last-Modified", answer.date),
            ("Content-Encoding", answer.encoding),
        ):
            if value:
                self.send_header(header, value)
        self.end_headers()
        limits = [limit for limit in (answer.cut, answer.stall) if limit is not None]
        body = body[: min(limits)] if limits else body
        library.num_sent += len(body)
        with suppress(ConnectionError):
            self.wfile.write(body)
            if answer.stall is not None:
                library.closing.wait(5)
        return None
