"""The rehearsal's mock Kaggle server with what only tests need: faults, Kaggle's own URL, kernels that run."""

import contextlib
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from pipeline.rehearsal.mock import mock_kaggle
from pipeline.rehearsal.server import Handler, MockKaggle, outcome
from pipeline.rehearsal.service import Reply, Service, json_reply
from tests.doubles.faults import REFUSALS, Fault, Faults
from tests.doubles.kernels import Kernels

KAGGLE_HOSTS = frozenset({"api.kaggle.com", "www.kaggle.com"})  # those that TLS is ended for
LOOP = "/loop"
LOOPING = Reply(302, headers={"Location": LOOP})
PAGE = b"<html><body><h1>Bad Gateway, or a login</h1></body></html>\n"


class FaultyKaggle(MockKaggle):
    """A server that fails as `faults` say, and ends TLS where it has a certificate."""

    def __init__(self, service: Service, kernels: Kernels, faults: Faults, tls: ssl.SSLContext | None) -> None:
        self.kernels, self.faults, self.tls = kernels, faults, tls
        self.stopping = threading.Event()
        self.asked: list[str] = []  # paths or URLs
        super().__init__(service, FaultyHandler)

    def misbehave(self, *faults: str) -> None:
        """From now on fail as these specs say (see faults.py), and no longer as earlier ones said."""
        self.faults = Faults(faults)

    def stop(self) -> None:
        """End what hangs and what runs as well."""
        self.stopping.set()
        super().stop()
        self.kernels.close()


@contextmanager
def faulty_kaggle(
    folder: Path | None,
    state: Path,
    *,
    faults: Iterable[str] = (),
    tls: ssl.SSLContext | None = None,
    **options: Any,
) -> Iterator[FaultyKaggle]:
    """As mock_kaggle, whose options it takes, with faults and kernels.

    With `tls` (a certificate for api.kaggle.com) the environment leads the client to Kaggle's own URL; the client must
    trust the certificate (REQUESTS_CA_BUNDLE).
    """

    def make(service: Service) -> FaultyKaggle:
        return FaultyKaggle(service, Kernels(state / "kernels", service, os.environ), Faults(faults), tls)

    with mock_kaggle(folder, state, make=make, **options) as kaggle:
        if tls is not None:
            del kaggle.environment["KAGGLE_API_ENVIRONMENT"]
        assert isinstance(kaggle, FaultyKaggle)
        yield kaggle


class FaultyHandler(Handler):
    """Answers one request as it should, or as a fault wants it."""

    server: FaultyKaggle
    fault: Fault | None = None  # what happens to the answer

    def do_CONNECT(self) -> None:  # noqa: N802 - http.server's name
        """A tunnel to a host of Kaggle's, which ends here."""
        host = self.path.rpartition(":")[0]
        if self.server.tls is None or host not in KAGGLE_HOSTS:
            super().do_CONNECT()
            return
        self.send_response(200, "Connection established")
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = cast("Any", self.connection.makefile("rb"))
        self.wfile = cast("Any", self.connection.makefile("wb"))
        self.close_connection = False

    def finish(self) -> None:
        """Close the connection, TLS or not."""
        super().finish()
        self.connection.close()

    def do_GET(self) -> None:  # noqa: N802
        """A redirect that leads to itself, or a file."""
        if self.path.endswith(LOOP):
            self.send(LOOPING)
        else:
            super().do_POST()

    def respond(self, call: str, act: Callable[[], Reply]) -> None:
        """Do what is asked for and answer, with the faults that were ordered."""
        self.server.calls.append(call)
        self.server.asked.append(self.path)
        self.fault = fault = self.server.faults.take(call)
        if fault is not None and fault.kind == "hang":
            self.server.stopping.wait(fault.number())
        if fault is not None and fault.kind in REFUSALS:
            self._fail(fault)
            return
        reply = outcome(act)
        if fault is not None and fault.kind == "accepted-then":
            self._fail(fault)
        else:
            self.send(reply if fault is None else _changed(reply, fault))

    def send_body(self, reply: Reply, start: int) -> None:
        """Send the body, unless it is to be cut."""
        if self.fault is not None and self.fault.kind == "cut":
            self.wfile.write(_content(reply)[start : start + int(self.fault.number())])
            self.break_off()
        else:
            super().send_body(reply, start)

    def _fail(self, fault: Fault) -> None:
        """Answer with the failure alone, or with nothing."""
        if fault.argument == "cut":
            self.break_off()
        elif fault.kind == "html":
            self.send(Reply(int(fault.argument or 502), PAGE, {"Content-Type": "text/html"}))
        elif fault.kind == "loop":
            self.send(LOOPING)
        elif "://" in fault.argument:
            self.send(Reply(302, headers={"Location": fault.argument}))
        else:
            status = int(fault.number())
            reply = json_reply({"code": status, "message": "This failure was ordered by a test"}, status)
            retry = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            self.send(Reply(status, reply.body, {**reply.headers, **retry}))

    def break_off(self) -> None:
        """End the connection without another word."""
        self.close_connection = True
        with contextlib.suppress(OSError):  # it is broken already
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)


def _content(reply: Reply) -> bytes:
    return reply.body.read_bytes() if isinstance(reply.body, Path) else reply.body


def _changed(reply: Reply, fault: Fault) -> Reply:
    """The reply with another body, other fields in it, or one bit turned over."""
    body = bytearray(_content(reply))
    match fault.kind:
        case "body":
            return Reply(200, fault.argument.encode(), json_reply({}).headers)
        case "fields":
            return json_reply(json.loads(body) | json.loads(fault.argument))
        case "flip":
            body[len(body) // 2] ^= 1
        case _:
            return reply
    return Reply(reply.status, bytes(body), reply.headers)
