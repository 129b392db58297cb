"""HTTP on 127.0.0.1: which request is which call of Kaggle's API, and who may ask.

The genuine client comes by way of `http_proxy`: its requests for http://localhost/api/v1/... arrive with the whole URL
in the request line.  Whatever else is asked of the proxy is refused: nothing leaves the machine.
"""

import json
import re
import socketserver
import sys
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import printable
from pipeline.rehearsal.service import Reply, Service, json_reply
from pipeline.rehearsal.state import Refusal

ADDRESS = "127.0.0.1"
MAX_BODY = 100 * 1024 * 1024  # bytes of a request
IDLE_LIMIT = 30  # seconds without a byte from a client
DOWNLOAD, UPLOAD, OFFLINE = "Download", "Upload", "Offline"  # in the log, beside the names of the API's calls

_CALL = re.compile(r"(?:/api)?/v1/[\w.]+/(\w+)")  # SERVICE/CALL
_STORAGE, _UPLOAD = "/storage/", "/upload/"


@dataclass(frozen=True)
class Call:
    """A request that came in: the call's name (or Download, Upload, Offline), and what it was about."""

    name: str
    detail: str = ""


class Server(socketserver.ThreadingTCPServer):
    """`serve_forever` runs it, `stop` ends it; one thread a request."""

    allow_reuse_address = True
    daemon_threads = False  # server_close waits for the threads, so nothing is left behind
    request_queue_size = 128

    def __init__(self, service: Service, handler: "type[Handler] | None" = None) -> None:
        self.service = service
        self.calls: list[Call] = []  # oldest first
        super().__init__((ADDRESS, 0), handler or Handler)

    @property
    def port(self) -> int:
        """The free port that it found."""
        return int(self.server_address[1])

    def stop(self) -> None:
        """End the loop and wait for the requests that are being answered."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no news; anything else is a bug and shows on stderr."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers one request and closes the connection."""

    protocol_version = "HTTP/1.1"
    server_version = "pipeline-rehearsal"
    timeout = IDLE_LIMIT
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing; the server has its own log."""

    def do_POST(self) -> None:
        """A call of the API, the content of a file, or that of a submission."""
        body = self.read_body()
        base, path = self.target()
        service = self.server.service
        if not base:
            host = printable(self.path.partition("//")[2].partition("/")[0])
            self.server.calls.append(Call(OFFLINE, host))
            self.send(_refusal(502, _offline(host)))
        elif self.command == "POST" and (match := _CALL.fullmatch(path)):
            call = match.group(1)
            self.respond(Call(call), lambda: self._call(call, body, base))
        elif self.command == "GET" and path.startswith(_STORAGE):
            link = path.removeprefix(_STORAGE)
            self.respond(Call(DOWNLOAD, link), lambda: service.file(link))
        elif self.command == "PUT" and path.startswith(_UPLOAD):
            token = path.removeprefix(_UPLOAD)
            self.respond(Call(UPLOAD, token), lambda: service.upload(token, body))
        else:
            self.send(_refusal(404, f"This rehearsal does not serve {path}"))

    do_GET = do_PUT = do_POST  # noqa: N815 - http.server's names

    def do_CONNECT(self) -> None:
        """A tunnel to another host."""
        host = self.path.rpartition(":")[0]
        self.server.calls.append(Call(OFFLINE, host))
        # The client shows the reason to its user, never the body.
        self.send_response(502, _offline(host))
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def target(self) -> tuple[str, str]:
        """The URL that we go by in this request ("" if it is meant for another host), and the path."""
        try:
            url = urlsplit(self.path)
            ours = url.hostname in ("localhost", ADDRESS) and url.port in (None, 80, self.server.port)
        except ValueError:  # not a URL, or no such port
            return "", self.path
        if not url.netloc:
            return f"http://{ADDRESS}:{self.server.port}", url.path
        return (f"http://{url.netloc}" if ours and url.scheme == "http" else ""), url.path

    def read_body(self, limit: int = MAX_BODY) -> bytes:
        """The request's body, or its first `limit` bytes; the client sends no chunks."""
        size = self.headers.get("Content-Length") or "0"
        return self.rfile.read(min(int(size), limit)) if size.isdecimal() else b""

    def respond(self, call: Call, act: Callable[[], Reply]) -> None:
        """Do what is asked for and answer."""
        self.server.calls.append(call)
        self.send(outcome(act))

    def _call(self, name: str, body: bytes, base: str) -> Reply:
        if not re.match(r"(Basic|Bearer) \S", self.headers.get("Authorization", "")):
            raise Refusal(401, "Unauthenticated")
        try:
            request = json.loads(body or b"{}")
        except ValueError:
            request = None
        if not isinstance(request, dict):
            raise Refusal(400, "The request is not a JSON object")
        return self.server.service.call(name, request, base)

    def send(self, reply: Reply) -> None:
        """Send the reply, or the part of it that was asked for."""
        start, stop = self.send_head(reply)
        for chunk in reply.chunks(start, stop):
            self.wfile.write(chunk)

    def send_head(self, reply: Reply) -> tuple[int, int]:
        """Send status and headers; returns which bytes of the body must follow, from `start` to before `stop`."""
        status, size, headers = reply.status, reply.size, dict(reply.headers)
        start, stop = 0, size
        # If-Range: the rest is wanted only if the file is still the one that was begun.
        if "ETag" in headers and self.headers.get("If-Range", headers["ETag"]) == headers["ETag"]:
            try:
                part = byte_range(self.headers.get("Range"), size)
            except Refusal as error:
                self.send(_refusal(error.status, str(error)))
                return 0, 0
            if part is not None:
                status, (start, stop) = 206, part
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(stop - start), "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        return start, stop


def outcome(act: Callable[[], Reply]) -> Reply:
    """What `act` answers, or its refusal in Kaggle's form."""
    try:
        return act()
    except Refusal as error:
        return _refusal(error.status, str(error))


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(start, stop) of a Range header `bytes=FIRST-[LAST]`; None, which sends everything, of any other.

    Raises:
        Refusal: 416, the file ends before FIRST.
    """
    match = re.fullmatch(r"bytes=([0-9]{1,15})-([0-9]{0,15})", header or "")
    if match is None:
        return None
    start, stop = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
    if start >= size:
        raise Refusal(416, "Requested range not satisfiable")
    return (start, stop) if start < stop else None


def _refusal(status: int, message: str) -> Reply:
    return json_reply({"code": status, "message": message}, status)


def _offline(host: str) -> str:
    return f"the rehearsal is offline: {host} is not reached"
