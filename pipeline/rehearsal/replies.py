"""What the server answers with: bytes or a file, whole or in part, and refusals as Kaggle words them."""

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

USERNAME = "rehearsal"
MAX_PAGE_SIZE = 200
DEFAULT_PAGE_SIZE = 20
CHUNK = 256 * 1024  # bytes read from disk at once
JSON = {"Content-Type": "application/json; charset=utf-8"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """An answer.  A file is read while it is sent, never as a whole."""

    status: int
    body: bytes | Path = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the whole body."""
        return self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """The body's bytes from `start` to before `stop`."""
        if isinstance(self.body, bytes):
            yield self.body[start:stop]
            return
        with self.body.open("rb") as stream:
            stream.seek(start)
            while start < stop and (chunk := stream.read(min(CHUNK, stop - start))):
                start += len(chunk)
                yield chunk


class Refusal(Exception):
    """The request is refused; Kaggle's errors are JSON objects with `code` and `message`."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reply = refusal(status, message, headers)


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    """The reply of a Refusal."""
    return json_reply({"code": status, "message": message}, status, headers)


def json_reply(values: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON answer."""
    body = json.dumps(values).encode()
    return Reply(status, body, {**JSON, **(headers or {})})


def gateway_page() -> Reply:
    """What a load balancer answers when nobody is behind it."""
    page = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"
    return Reply(502, page, {"Content-Type": "text/html; charset=UTF-8"})


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(start, stop) of a Range header, or None to send everything (no, several, or unreadable ranges).

    Raises:
        Refusal: 416, nothing of the range is there.
    """
    match = re.fullmatch(r"bytes=([0-9]{0,15})-([0-9]{0,15})", header or "")
    if match is None or match.group(1) == match.group(2) == "":
        return None
    first, last = match.groups()
    if first == "":
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size:
        raise Refusal(416, "Requested range not satisfiable", {"Content-Range": f"bytes */{size}"})
    return start, stop


def signed(url: str) -> str:
    """A link to storage: like Kaggle's it carries a signature, and needs no credentials."""
    return f"{url}?X-Goog-Expires=345600&X-Goog-Signature={secrets.token_hex(32)}"


def page(request: Json, name: str, items: list[Json]) -> Reply:
    """One page of `items`; the token of the next is the number of items before it."""
    size = request.get("pageSize") or DEFAULT_PAGE_SIZE
    token, number = request.get("pageToken") or "", request.get("page") or 1
    if not isinstance(size, int) or not isinstance(number, int) or not str(token).isascii():
        bad_request("pageSize and page are numbers")
    if token and not str(token).isdecimal():
        bad_request("Invalid page token")
    size = max(1, min(size, MAX_PAGE_SIZE))
    start = int(token) if token else max(0, number - 1) * size
    rest = len(items) - (start + size)
    return json_reply({name: items[start : start + size], "nextPageToken": str(start + size) if rest > 0 else ""})


def bad_request(message: str) -> NoReturn:
    """Refuse what nobody can mean."""
    raise Refusal(400, message)
