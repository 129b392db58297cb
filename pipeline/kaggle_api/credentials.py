"""Are there credentials for Kaggle?  Prints no secret, and hides them where others quote them.

Run by any Python 3.11, before anything is installed: `python3 -m pipeline.kaggle_api.credentials`.
"""

import base64
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pipeline.errors import AccessDenied

CURE = (  # the first choice, of several
    "create a token at https://www.kaggle.com/settings (API) and put it\n"
    "  into ~/.kaggle/access_token or KAGGLE_API_TOKEN; `./run_all.sh --rehearsal` needs none"
)
FILES = ("access_token", "access_token.txt", "kaggle.json", "credentials.json")
PROSE = ("message", "error")  # fields that Kaggle words for people
LONG = 16  # characters from which a secret is no part of a word by chance; Kaggle's have 32 and more
LEAST = 4  # characters: nobody's secret is shorter, and hiding "a" would tell more than it hides


def require(environ: Mapping[str, str]) -> str:
    """Where the client will find credentials; it looks in this order.

    Raises:
        AccessDenied: there are none, or kaggle.json has the wrong shape.
    """
    user, *others = _folders(environ)
    configured = environ.get("KAGGLE_CONFIG_DIR")
    places: list[tuple[str, ...] | Path] = [  # variables that must all be set, or a file
        ("KAGGLE_API_TOKEN",),
        ("KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_API_V1_TOKEN"),  # in a notebook on Kaggle
        user / "access_token",
        user / "access_token.txt",
        ("KAGGLE_USERNAME", "KAGGLE_KEY"),
        *(folder / "kaggle.json" for folder in ([Path(configured)] if configured else [user, *others])),
        user / "credentials.json",  # OAuth
    ]
    for place in places:
        if isinstance(place, tuple):
            if all(environ.get(name) for name in place):
                return " and ".join(place)
        elif place.is_file():
            name, kept = _read(place)
            if place.name == "kaggle.json" and not (name and any(kept)):
                raise AccessDenied(f'{place} is not of the shape {{"username": "...", "key": "..."}}: {CURE}')
            if place.stat().st_size:
                return str(place)
    raise AccessDenied(f"no Kaggle credentials: {CURE}")


def secrets(environ: Mapping[str, str]) -> list[str]:
    """What nobody must read in an answer: all secrets in reach of the client, also as they travel; long ones first."""
    users, keys = {environ.get("KAGGLE_USERNAME", "")}, {environ.get("KAGGLE_KEY", "")}
    folders = {*_folders(environ), *map(Path, filter(None, [environ.get("KAGGLE_CONFIG_DIR")]))}
    files = [folder / name for folder in folders for name in FILES]
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_API_V1_TOKEN"):  # a token, or the name of a file with one
        keys.add(environ.get(name, ""))
        files.append(Path(environ.get(name) or "/nonexistent"))
    for path in files:
        user, kept = _read(path)
        users.add(user)
        keys |= kept
    for name, value in environ.items():
        address = value.partition("://")[2] or value
        if name.lower().endswith("_proxy") and (match := re.match(r"(?:([^:]*):)?(.*)@", address)):
            users.add(unquote(match[1] or ""))
            keys |= {match[2], unquote(match[2])}
    pairs = {f"{user}:{secret}" for user in users for secret in keys if secret}
    travelling = {base64.b64encode(pair.encode()).decode() for pair in pairs}
    return sorted((secret for secret in keys | travelling if len(secret) >= LEAST), key=len, reverse=True)


def hide(value: Any, kept: Iterable[str], name: str = "") -> Any:
    """The JSON value without the secrets `kept`, wherever in it they are; `name` is what it stands under.

    In names and tags only the long ones are looked for: a password like "test" may well be a part of those.
    """
    if isinstance(value, str):
        for secret in kept:
            if name in PROSE or len(secret) >= LONG:
                value = value.replace(secret, "***")
        return value
    if isinstance(value, list):
        return [hide(item, kept, name) for item in value]
    if isinstance(value, dict):
        return {name: hide(item, kept, name) for name, item in value.items()}
    return value


def _read(path: Path) -> tuple[str, set[str]]:
    """The user's name and the secrets in one of Kaggle's files."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):  # a token is no file's name
        return "", set()
    with suppress(ValueError):
        values = json.loads(text)
        if isinstance(values, dict):
            kept = {str(values.get(name) or "") for name in ("key", "token", "access_token", "refresh_token")}
            return str(values.get("username") or ""), kept
    return "", {text}


def _folders(environ: Mapping[str, str]) -> list[Path]:
    """The client's folders; for a user whom the system does not know, as in some containers, none that exists."""
    try:
        home = Path(environ.get("HOME") or Path.home())
    except RuntimeError:
        home = Path("/nonexistent")
    return [home / ".kaggle", Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"]


def main() -> int:
    """Exit code 0 if there are credentials, else 5 and one line that says how to get them."""
    try:
        require(os.environ)
    except (AccessDenied, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return AccessDenied.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
