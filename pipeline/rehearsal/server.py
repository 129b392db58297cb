"""The HTTP server on 127.0.0.1: which request is which call, who may ask, and which fault strikes.

The genuine client reaches it in two ways, without knowing:
- `http_proxy`: requests for http://localhost/api/v1/... arrive with the whole URL in the request line;
- `https_proxy`: a CONNECT to api.kaggle.com, whose TLS this server ends itself if it has a certificate.
Whatever else is asked of it as a proxy is refused: nothing leaves the machine.
"""

import contextlib
import json
import re
import socket
import socketserver
import ssl
import sys
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from pipeline.errors import printable
from pipeline.rehearsal.faults import ANSWERS, CONTENT, DOWNLOAD, REFUSALS, UPLOAD, Fault, Faults
from pipeline.rehearsal.kernels import KERNELS
from pipeline.rehearsal.replies import JSON, Refusal, Reply, byte_range, gateway_page, json_reply, refusal
from pipeline.rehearsal.service import Service

# --- The transport below the server: threads, request bodies, TLS in a tunnel, and answers, whole or dama


MAX_BODY = 100 * 1024 * 1024  # bytes of a request
IDLE_LIMIT = 60  # seconds without a byte from a client


class ConnectionServer(socketserver.ThreadingTCPServer):
    """One thread a connection; `stop` ends them all."""

    allow_reuse_address = True
    daemon_threads = False  # server_close waits for the threads, so nothing is left behind
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type["Connection"]) -> None:
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(address, handler)

    def track(self, connection: socket.socket) -> None:
        """Have `stop` end this connection."""
        with self._open_lock:
            self._open.add(connection)
        if self.stopping.is_set():
            hang_up(connection)

    def untrack(self, connection: socket.socket) -> None:
        """The connection has ended."""
        with self._open_lock:
            self._open.discard(connection)

    def stop(self) -> None:
        """End the loop, all connections and their threads."""
        self.stopping.set()
        self.shutdown()
        with self._open_lock:
            connections = list(self._open)
        for connection in connections:
            hang_up(connection)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no news; anything else is a bug and shows on stderr."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def hang_up(connection: socket.socket) -> None:
    """Break a connection off in both directions."""
    with contextlib.suppress(OSError):  # it is broken already
        connection.shutdown(socket.SHUT_RDWR)


class Connection(BaseHTTPRequestHandler):
    """One connection's mechanics; what requests mean is the subclass's business."""

    protocol_version = "HTTP/1.1"
    server_version = "pipeline-rehearsal"
    timeout = IDLE_LIMIT
    server: ConnectionServer

    def setup(self) -> None:
        """Let the server know of the connection."""
        super().setup()
        self.server.track(self.connection)

    def finish(self) -> None:
        """Close it, TLS or not."""
        try:
            super().finish()
        finally:
            self.server.untrack(self.connection)
            self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing; the server has its own log."""

    def end_tls(self, context: ssl.SSLContext) -> None:
        """Go on in TLS: the client believes to speak to the host at the tunnel's other end."""
        self.server.untrack(self.connection)
        self.connection = context.wrap_socket(self.connection, server_side=True)
        self.server.track(self.connection)
        self.rfile = cast("Any", self.connection.makefile("rb"))
        self.wfile = cast("Any", self.connection.makefile("wb"))

    def read_body(self, limit: int = MAX_BODY) -> bytes:
        """The request's body, or its first `limit` bytes."""
        stream = cast("BinaryIO", self.rfile)
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            size = self.headers.get("Content-Length") or "0"
            wanted = min(int(size), limit) if size.isdecimal() else 0
            if str(wanted) != size:
                self.close_connection = True  # what remains unread must not be taken for the next request
            return stream.read(wanted)
        body = b""
        while (size := stream.readline(20).split(b";")[0].strip().decode("latin-1")) not in ("0", ""):
            try:
                body += stream.read(int(size, 16))
            except ValueError:
                break
            stream.readline(3)
            if len(body) > limit:
                break
        else:
            stream.readline(3)
            return body
        self.close_connection = True
        return body[:limit]

    def send(self, reply: Reply, fault: Fault | None = None) -> None:
        """Send the part of the reply that was asked for, damaged as `fault` says."""
        size = reply.size
        if fault is not None and fault.kind == "truncate":
            size = min(size, int(fault.number)) if fault.number is not None else size // 2
        status, headers, span = reply.status, dict(reply.headers), (0, size)
        if isinstance(reply.body, Path):
            try:
                part = self._asked_for(headers, size)
            except Refusal as error:
                self.send(error.reply)
                return
            if part is not None:
                status, span = 206, part
                headers["Content-Range"] = f"bytes {part[0]}-{part[1] - 1}/{size}"
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(span[1] - span[0])}.items():
            self.send_header(name, value)
        self.end_headers()
        self._send_body(reply, span, size, fault)

    def _asked_for(self, headers: dict[str, str], size: int) -> tuple[int, int] | None:
        condition = self.headers.get("If-Range")
        if condition is not None and condition not in (headers.get("ETag"), headers.get("Last-Modified")):
            return None
        return byte_range(self.headers.get("Range"), size)

    def _send_body(self, reply: Reply, span: tuple[int, int], size: int, fault: Fault | None) -> None:
        position, stop = span
        wrong, cut = -1, False
        if fault is not None and fault.kind == "flip":
            wrong = size // 2 if fault.number is None else int(fault.number)
        if fault is not None and fault.kind == "cut":
            cut, stop = True, min(stop, position + int(fault.number or 0))
        for chunk in reply.chunks(position, stop):
            self.wfile.write(_flipped(chunk, wrong - position))
            position += len(chunk)
        if cut:
            self.break_off()

    def break_off(self) -> None:
        """End the connection without another word."""
        self.close_connection = True
        self.wfile.flush()
        hang_up(self.connection)

    def refuse(self, status: int, message: str) -> None:
        """Send an error in Kaggle's form."""
        self.send(refusal(status, message))


def _flipped(chunk: bytes, at: int) -> bytes:
    """The chunk with one bit of byte `at` turned over, if it has such a byte."""
    if not 0 <= at < len(chunk):
        return chunk
    return chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :]


ADDRESS = "127.0.0.1"
KAGGLE_HOSTS = frozenset({"api.kaggle.com", "www.kaggle.com"})  # those that TLS is ended for
KERNEL_OUTPUT = "ListKernelSessionOutput"
OFFLINE = "Offline"  # in the log: a request for another host

_SERVICES = r"competitions\.CompetitionApiService|security\.OAuthService|kernels\.KernelsApiService"
_API = re.compile(rf"(?:/api)?/v1/(?:{_SERVICES})/(\w+)")
_STORAGE, _UPLOAD, _LOOP = "/storage/", "/upload/", "/loop"
_LOOPING = Reply(302, headers={"Location": _LOOP})


@dataclass(frozen=True)
class Call:
    """A request that came in: the call's name (or Download, Upload, Offline), when, and what it was about."""

    name: str
    time: float  # seconds since 1970
    detail: str = ""


class Server(ConnectionServer):
    """The stand-in's server; `serve_forever` runs it, `stop` ends it."""

    def __init__(
        self, service: Service, faults: Faults, clock: Callable[[], float], tls: ssl.SSLContext | None = None
    ) -> None:
        self.service, self.faults, self.tls = service, faults, tls
        self._clock = clock
        self._calls: list[Call] = []
        self._calls_lock = threading.Lock()
        super().__init__((ADDRESS, 0), Handler)

    @property
    def port(self) -> int:
        """The free port that it found."""
        return int(self.server_address[1])

    def log(self, name: str, detail: str = "") -> None:
        """Remember a request."""
        with self._calls_lock:
            self._calls.append(Call(name, self._clock(), detail))

    def calls(self) -> list[Call]:
        """All requests so far."""
        with self._calls_lock:
            return list(self._calls)


class Handler(Connection):
    """The requests of one connection."""

    server: Server
    tunnel = ""  # https://HOST inside of a CONNECT

    def do_POST(self) -> None:
        """A call of the API."""
        body = self.read_body()
        base, path = self._target()
        match = _API.fullmatch(path)
        if not base or match is None:
            self._elsewhere(base, path)
            return
        call = match.group(1)
        self.server.log(call)

        def act() -> Reply:
            if not re.match(r"(Basic|Bearer) \S", self.headers.get("Authorization", "")):
                raise Refusal(401, "Unauthenticated")
            return self.server.service.call(call, _json_object(body), base)

        # What damages a download strikes the file itself, not the redirect to it.
        leads_to_files = call.startswith("DownloadDataFile") or call == KERNEL_OUTPUT
        self._serve(call, act, damaged_by=() if leads_to_files else (call,))

    def do_GET(self) -> None:
        """The content of a file, to where a download was redirected."""
        base, path = self._target()
        if base and path == _LOOP:
            self.send(_LOOPING)
            return
        if not base or not path.startswith(_STORAGE):
            self._elsewhere(base, path)
            return
        name = path.removeprefix(_STORAGE)
        self.server.log(DOWNLOAD, name)

        def act() -> Reply:
            file = self.server.service.file(name)
            return Reply(200, file.path, file.headers())

        call = KERNEL_OUTPUT if name.startswith(KERNELS) else "DownloadDataFile" if "/" in name else "DownloadDataFiles"
        self._serve(DOWNLOAD, act, damaged_by=(DOWNLOAD, call))

    def do_PUT(self) -> None:
        """The content of a submission."""
        base, path = self._target()
        if not base or not path.startswith(_UPLOAD):
            self.read_body()
            self._elsewhere(base, path)
            return
        token = path.removeprefix(_UPLOAD)
        self.server.log(UPLOAD, token)
        if cut := self.server.faults.take((UPLOAD,), {"cut"}):
            self.read_body(int(cut.number or 0))
            self.break_off()
            return
        body = self.read_body()
        self._serve(UPLOAD, lambda: self.server.service.upload(token, body), damaged_by=())

    def do_CONNECT(self) -> None:
        """A tunnel to a host of Kaggle's, which ends here."""
        host = self.path.rpartition(":")[0]
        if self.server.tls is None or host not in KAGGLE_HOSTS or self.tunnel:
            self.server.log(OFFLINE, host)
            # The client shows the reason to its user, never the body.
            self.send_response(502, _offline(host))
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()
            return
        self.send_response(200, "Connection established")
        self.end_headers()
        self.end_tls(self.server.tls)
        self.tunnel = f"https://{host}"
        self.close_connection = False

    def _target(self) -> tuple[str, str]:
        """The URL that we go by in this request ("" if it is meant for somebody else), and the path."""
        try:
            url = urlsplit(self.path)
            ours = url.hostname in ("localhost", ADDRESS) and url.port in (None, 80, self.server.port)
        except ValueError:  # no URL, or no such port
            return "", self.path
        if self.tunnel:
            return self.tunnel, url.path
        if not url.netloc:
            return f"http://{ADDRESS}:{self.server.port}", url.path
        return (f"http://{url.netloc}" if ours and url.scheme == "http" else ""), url.path

    def _elsewhere(self, base: str, path: str) -> None:
        """Refuse what is meant for somebody else, and what nobody knows."""
        if base:
            self.refuse(404, f"This rehearsal does not serve {path}")
            return
        host = printable(self.path.partition("//")[2].partition("/")[0])
        self.server.log(OFFLINE, host)
        self.refuse(502, _offline(host))

    def _serve(self, call: str, act: Callable[[], Reply], damaged_by: Collection[str]) -> None:
        """Do what is asked for and answer, with the faults that were ordered."""
        fault = self.server.faults.take((call,), ANSWERS)
        if fault is not None and fault.kind == "hang":
            self.server.stopping.wait(fault.number)
        if fault is not None and fault.kind in REFUSALS:
            self._fail(fault)
            return
        try:
            reply = act()
        except Refusal as error:
            reply = error.reply
        if fault is None or fault.kind == "hang":
            self.send(reply, self.server.faults.take(damaged_by, CONTENT))
        elif fault.kind == "accepted-then":
            self._fail(fault)
        elif fault.kind == "body":
            self.send(Reply(200, fault.text.encode(), JSON))
        else:
            self.send(json_reply({**json.loads(bytes(reply.body)), **json.loads(fault.text)}, reply.status))

    def _fail(self, fault: Fault) -> None:
        """Answer with the failure alone, or with nothing."""
        if fault.kind == "close" or (fault.kind == "accepted-then" and fault.number is None):
            self.break_off()
        else:
            self.send(_failure(fault))


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body or b"{}")
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise Refusal(400, "The request is no JSON object")
    return values


def _offline(host: str) -> str:
    return f"the rehearsal is offline: {host} is not reached"


def _failure(fault: Fault) -> Reply:
    if fault.kind == "html":
        return gateway_page()
    if fault.kind == "loop":
        return _LOOPING
    headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
    return refusal(int(fault.number or 500), "This failure was ordered with --fault", headers)
