"""A server on this machine that serves one made-up file, well or badly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Serving:
    """What is served, and what was asked.

    Attributes:
        content: Of the file, under any path.
        ranges: Whether a part may be asked for.
        break_after: Bytes after which connections break, one entry a connection; those after the last are whole.
        status: In place of the file.
        sends_on: Address to be sent on to.
        lengthless: Leave out how long the file is.
        asked: ``Range`` of each request, None where all was asked for.
    """

    content: bytes
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)
    status: int = 200
    sends_on: str | None = None
    lengthless: bool = False
    asked: list[str | None] = field(default_factory=list)
    address: str = ""


@contextmanager
def weights_server(content: bytes, **how: Any) -> Iterator[Serving]:
    """Serve while the block runs."""
    serving = Serving(content, **how)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, serving)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    serving.address = f"http://127.0.0.1:{server.server_address[1]}/"
    try:
        yield serving
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(request: BaseHTTPRequestHandler, serving: Serving) -> None:
    """One response."""
    asked = request.headers.get("Range")
    serving.asked.append(asked)
    if serving.sends_on is not None:
        request.send_response(302)
        request.send_header("Location", serving.sends_on)
        request.end_headers()
        return
    if serving.status != 200:
        request.send_error(serving.status)
        return
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and serving.ranges else 0
    if start and start >= len(serving.content):
        request.send_error(416)
        return
    body = serving.content[start:]
    request.send_response(206 if start else 200)
    if not serving.lengthless:
        request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body[: serving.break_after.pop(0)] if serving.break_after else body)
