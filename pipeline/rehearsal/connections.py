"""The transport below the server: threads, request bodies, TLS in a tunnel, and answers, whole or damaged."""

import contextlib
import socket
import socketserver
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipeline.rehearsal.faults import Fault
from pipeline.rehearsal.replies import Refusal, Reply, byte_range, refusal

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
