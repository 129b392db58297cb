"""HTTP on 127.0.0.1: maps requests to calls of Kaggle's API, and checks authorisation.

The official client uses it as `http_proxy`, so its requests for http://localhost/api/v1/... have the whole URL in the
request line.  Requests for any other host are refused: nothing leaves the machine.
"""

import json
import re
import shutil
import socketserver
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from pipeline.errors import printable
from pipeline.rehearsal.service import Reply, Service, json_reply
from pipeline.rehearsal.state import Refusal

ADDRESS = "127.0.0.1"
MAX_BODY = 100 * 1024 * 1024  # bytes of a request
IDLE_LIMIT = 30  # seconds without a byte from a client
DOWNLOAD, UPLOAD, OFFLINE = "Download", "Upload", "Offline"  # names of calls besides the API's

_OURS = re.compile(r"(?:http://localhost(?::80)?)?(/[^?]*)(?:\?.*)?")  # a path, or our URL, without the query
_CALL = re.compile(r"(?:/api)?/v1/[\w.]+/(\w+)")  # SERVICE/CALL
_STORAGE, _UPLOAD = "/storage/", "/upload/"


class MockKaggle(socketserver.ThreadingTCPServer):
    """The mock server: `serve_forever` runs it, `stop` ends it; one thread per request."""

    environment: dict[str, str]  # for a child process that is to find this server; see mock.py

    allow_reuse_address = True
    daemon_threads = False  # server_close waits for the threads
    request_queue_size = 128

    def __init__(self, service: Service, handler: "type[Handler] | None" = None) -> None:
        self.service, self.slug, self.state = service, service.slug, service.state
        self.calls: list[str] = []  # the names of the calls received, oldest first
        super().__init__((ADDRESS, 0), handler or Handler)
        self.port = int(self.server_address[1])  # a free port

    def stop(self) -> None:
        """End the loop and wait for open requests."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that hang up; anything else is a bug and shows on stderr."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Handle one request and close the connection."""

    protocol_version = "HTTP/1.1"
    server_version = "pipeline-rehearsal"
    timeout = IDLE_LIMIT
    server: MockKaggle

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing; the server has its own log."""

    def do_POST(self) -> None:
        """A call of the API, a download, or an upload."""
        service, size = self.server.service, self.headers.get("Content-Length", "")  # the client sends no chunks
        body = self.rfile.read(min(int(size), MAX_BODY)) if size.isdecimal() else b""
        path = match[1] if (match := _OURS.fullmatch(self.path)) else ""
        if not path:
            self.offline(self.path.partition("//")[2].partition("/")[0])
        elif self.command == "POST" and (match := _CALL.fullmatch(path)):
            call = match[1]
            self.respond(call, lambda: self._call(call, body))
        elif self.command == "GET" and path.startswith(_STORAGE):
            link = path.removeprefix(_STORAGE)
            self.respond(DOWNLOAD, lambda: service.file(link))
        elif self.command == "PUT" and path.startswith(_UPLOAD):
            token = path.removeprefix(_UPLOAD)
            self.respond(UPLOAD, lambda: service.upload(token, body))
        else:
            self.send(_refusal(404, f"This rehearsal does not serve {path}"))

    do_GET = do_PUT = do_POST  # noqa: N815 - http.server's names

    def do_CONNECT(self) -> None:
        """Refuse a tunnel to another host."""
        self.offline(self.path.rpartition(":")[0])

    def offline(self, host: str) -> None:
        """Refuse a request for another host; the client shows its user the reason, never the body."""
        self.server.calls.append(OFFLINE)
        self.send_response(502, f"the rehearsal is offline: {printable(host)} is not reached")
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def respond(self, call: str, act: Callable[[], Reply]) -> None:
        """Carry out the call and reply."""
        self.server.calls.append(call)
        self.send(outcome(act))

    def _call(self, name: str, body: bytes) -> Reply:
        if not re.match(r"(Basic|Bearer) \S", self.headers.get("Authorization", "")):
            raise Refusal(401, "Unauthenticated")
        try:
            return self.server.service.call(name, dict(json.loads(body or b"{}")))
        except (ValueError, TypeError, KeyError) as error:
            raise Refusal(400, f"The request cannot be meant so: {error}") from error

    def send(self, reply: Reply) -> None:
        """Send the reply; of a file only the rest, if requested."""
        size = reply.body.stat().st_size if isinstance(reply.body, Path) else len(reply.body)
        headers, start = dict(reply.headers), 0
        # If-Range: send the rest only if the file has not changed.
        if "ETag" in headers and self.headers.get("If-Range", headers["ETag"]) == headers["ETag"]:
            start = first_byte(self.headers.get("Range"), size)
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self.send_response(206 if start else reply.status)
        for name, value in {**headers, "Content-Length": str(size - start), "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.send_body(reply, start)

    def send_body(self, reply: Reply, start: int) -> None:
        """Send the reply's body from the byte `start` on."""
        if isinstance(reply.body, bytes):
            self.wfile.write(reply.body[start:])
        else:
            with reply.body.open("rb") as stream:
                stream.seek(start)
                shutil.copyfileobj(stream, self.wfile)


def outcome(act: Callable[[], Reply]) -> Reply:
    """The reply of `act`, or its refusal in Kaggle's form."""
    try:
        return act()
    except Refusal as error:
        return _refusal(error.status, str(error))


def first_byte(header: str | None, size: int) -> int:
    """The first byte of a Range header `bytes=FIRST-` for a file of `size` bytes; 0 for any other header."""
    match = re.fullmatch(r"bytes=([0-9]{1,15})-", header or "")
    return int(match[1]) if match and int(match[1]) < size else 0


def _refusal(status: int, message: str) -> Reply:
    return json_reply({"code": status, "message": message}, status)
