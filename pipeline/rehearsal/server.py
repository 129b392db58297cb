"""The HTTP server on 127.0.0.1: which request is which call, who may ask, and which fault strikes.

The genuine client reaches it in two ways, without knowing:
- `http_proxy`: requests for http://localhost/api/v1/... arrive with the whole URL in the request line;
- `https_proxy`: a CONNECT to api.kaggle.com, whose TLS this server ends itself if it has a certificate.
Whatever else is asked of it as a proxy is refused: nothing leaves the machine.
"""

import json
import re
import ssl
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import printable
from pipeline.rehearsal.connections import Connection, ConnectionServer
from pipeline.rehearsal.faults import ANSWERS, CONTENT, DOWNLOAD, REFUSALS, UPLOAD, Fault, Faults
from pipeline.rehearsal.kernels import KERNELS
from pipeline.rehearsal.replies import JSON, Refusal, Reply, gateway_page, json_reply, refusal
from pipeline.rehearsal.service import Service

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

    def do_POST(self) -> None:  # noqa: N802 - http.server's name
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

    def do_GET(self) -> None:  # noqa: N802
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

    def do_PUT(self) -> None:  # noqa: N802
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

    def do_CONNECT(self) -> None:  # noqa: N802
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
