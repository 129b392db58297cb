"""Requests to the mock server in plain HTTP, and a small folder to serve."""

import http.client
import json
from pathlib import Path
from typing import Any

from pipeline.rehearsal.server import MockKaggle

CONTENT = bytes(range(256)) * 40  # 10,240 bytes
SLUG = "rehearsal-small"
SERVICE = "/api/v1/competitions.CompetitionApiService/"


def make_folder(parent: Path) -> Path:
    folder = parent / "small"
    (folder / "below").mkdir(parents=True)
    (folder / "a.bin").write_bytes(CONTENT)
    (folder / "below" / "b c.txt").write_text("b")
    (folder / "z.txt").write_text("z")
    return folder


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.reason, self.headers = response.status, response.reason, response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(kaggle: MockKaggle, method: str, url: str, body: bytes = b"", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", kaggle.port, timeout=10)
    try:
        connection.request(method, url, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return Answer(connection.getresponse())
    finally:
        connection.close()


def call(kaggle: MockKaggle, name: str, **fields: Any) -> Answer:
    body = json.dumps({"competitionName": SLUG, **fields}).encode()
    return ask(kaggle, "POST", SERVICE + name, body, Authorization="Basic eDp5")
