"""Every kind of secret that may be in reach of a command, and a Kaggle that quotes whatever it was sent."""

import base64
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support import clean_environment

USER = "somebody"
# By kind: the text that must appear nowhere.
SECRETS = {
    "KAGGLE_API_TOKEN": "KGAT_token0in0the0environment",
    "access_token": "KGAT_token0in0a0file",
    "KAGGLE_KEY": "0123456789abcdef-key-in-the-environment",
    "kaggle.json": "0123456789abcdef-key-in-the-file",
    "KAGGLE_CONFIG_DIR": "0123456789abcdef-key-in-another-folder",
    "credentials.json": "oauth-refresh-token-0123456789",
    "proxy": "p@ss/word-of-the-proxy",
    "AWS_SECRET_ACCESS_KEY": "aws/secret+of0somebody",
}
OF_KAGGLE = [kind for kind in SECRETS if kind not in ("proxy", "AWS_SECRET_ACCESS_KEY")]


def place(kind: str, home: Path, port: int) -> dict[str, str]:
    """Put one secret where it belongs; the variables that go with it.  `port` is where Kaggle and the proxy are."""
    secret, folder = SECRETS[kind], home / ".kaggle"
    if kind in ("KAGGLE_API_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        return {kind: secret}
    if kind == "KAGGLE_KEY":
        return {"KAGGLE_USERNAME": USER, "KAGGLE_KEY": secret}
    if kind == "proxy":
        proxy = f"http://{USER}:{quote(secret, safe='')}@127.0.0.1:{port}"
        return {"http_proxy": proxy, "https_proxy": proxy}
    if kind == "KAGGLE_CONFIG_DIR":
        folder = home / "elsewhere"
    folder.mkdir(parents=True, exist_ok=True)
    name, content = {
        "access_token": ("access_token", f"{secret}\n"),
        "credentials.json": ("credentials.json", json.dumps({"refresh_token": secret, "username": USER})),
    }.get(kind, ("kaggle.json", json.dumps({"username": USER, "key": secret})))
    (folder / name).write_text(content)
    (folder / name).chmod(0o600)
    return {kind: str(folder)} if kind == "KAGGLE_CONFIG_DIR" else {}


def way(home: Path, port: int, *kinds: str) -> dict[str, str]:
    """An environment with these secrets, in which the genuine client asks the Kaggle at `port`."""
    proxy = dict.fromkeys(("http_proxy", "https_proxy"), f"http://127.0.0.1:{port}")
    environ = {**clean_environment(), "HOME": str(home), **proxy, "no_proxy": "", "KAGGLE_API_ENVIRONMENT": "LOCALHOST"}
    for kind in kinds:
        environ |= place(kind, home, port)
    return environ


def leaks(texts: Mapping[str, bytes]) -> list[str]:
    """Which secrets are in which of the texts, plain or as they travel."""
    found = []
    for kind, secret in SECRETS.items():
        forms = {secret, quote(secret, safe=""), base64.b64encode(f"{USER}:{secret}".encode()).decode()}
        found += [f"{kind} in {name}" for name, text in texts.items() if any(form.encode() in text for form in forms)]
    return found


class Quoting(http.server.BaseHTTPRequestHandler):
    """Answers each call with a refusal that quotes all that came with it, decoded and as it came."""

    server: "QuotingServer"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        quoted = [body]
        for name in ("Authorization", "Proxy-Authorization"):
            kind, _, text = self.headers.get(name, "").partition(" ")
            quoted += [text, base64.b64decode(text).decode() if kind == "Basic" else text]
        heard = "".join(f"<{text}>" for text in quoted if text)
        self.server.heard.append(heard)
        status, answer = self.server.answer(self.path.rpartition("/")[2], self.server.instead or heard)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class QuotingServer(http.server.ThreadingHTTPServer):
    """`status` is what it answers; 200 stands for lists that quote, and 0 for what is no JSON.

    With `instead` it says that instead of what it heard.
    """

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.status = 403
        self.instead = ""
        super().__init__(("127.0.0.1", 0), Quoting)

    def answer(self, call: str, said: str) -> tuple[int, dict[str, Any] | bytes]:
        """The status and the body for a call; a token may be introspected, so that more calls come."""
        if call == "IntrospectToken" and self.status != 401:
            return 200, {"active": True, "username": USER, "userId": 1}
        if self.status == 200:
            entry = {"ref": 7, "status": "error", "errorDescription": said, "description": said, "fileName": said}
            return 200, {"submissions": [{**entry, "date": "2026-01-01T00:00:00Z", "totalBytes": 5}]}
        if self.status == 0:
            return 200, said.encode()
        return self.status, {"code": self.status, "message": f"You sent {said}"}


@contextmanager
def quoting_kaggle() -> Iterator[QuotingServer]:
    """A Kaggle, and a proxy before it, that quotes secrets in all it says."""
    with QuotingServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
