"""Find, read and check Kaggle credentials before they are used, whatever an editor or a shell did to them.

Prints no secret, and hides secrets in other programs' messages.  Runs on any Python 3.11, before anything is installed:
`python3 -m pipeline.kaggle_api.credentials`.
"""

import base64
import json
import os
import re
import string
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from pipeline.errors import AccessDenied, PipelineError, UsageError, printable

CURE = (  # the simplest way of several
    "create a token at https://www.kaggle.com/settings (API) and put it\n"
    "  into ~/.kaggle/access_token or KAGGLE_API_TOKEN; `./run_all.sh --rehearsal` needs none"
)
FILES = ("access_token", "access_token.txt", "kaggle.json", "credentials.json")
LEGACY = {"KAGGLE_USERNAME": "username", "KAGGLE_KEY": "key"}  # a variable, and the field of kaggle.json
NOTEBOOK = ("KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_API_V1_TOKEN", "KAGGLE_DATA_PROXY_URL")  # set in a Kaggle notebook
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
CORRECT = "\n  correct that, or get a new token at https://www.kaggle.com/settings (API)"
AROUND = string.whitespace + "\ufeff\u200b\xa0\"'\u201c\u201d\u2018\u2019"  # often copied along with a secret
PROSE = ("message", "error")  # fields with text of Kaggle's
LONG = 16  # characters; shorter secrets may be part of a word by chance, and Kaggle's have 32 or more
LEAST = 4  # characters: hiding "a" would reveal more than it hides


class Found(NamedTuple):
    """Where the credentials are, and the variables that make the client use these and no others."""

    place: str
    variables: Mapping[str, str]


def require(environ: Mapping[str, str]) -> Found:
    """The credentials in the first of the client's places that has any.

    Raises:
        AccessDenied: there are none, or the first cannot be used.
        UsageError: a variable names certificates that do not exist.
    """
    found = _token(environ) or _legacy(environ)
    oauth = _folders(environ)[0] / "credentials.json"
    if found is None and _text(oauth):
        found = Found(str(oauth), {})  # the client reads and renews it itself
    if found is None:
        raise AccessDenied(_why_none(environ))
    require_certificates(environ)
    return found


def _token(environ: Mapping[str, str]) -> Found | None:
    place, token = "KAGGLE_API_TOKEN", environ.get("KAGGLE_API_TOKEN", "").strip(AROUND)
    if token.startswith("/") or os.path.exists(token):  # noqa: PTH110 - Path refuses a name that is too long
        place, token = f"{token}, which {place} names", _text(Path(token)) or "nothing there"
    elif not token and all(environ.get(name) for name in NOTEBOOK[:2]):
        return Found(" and ".join(NOTEBOOK[:2]), {name: environ[name] for name in NOTEBOOK if name in environ})
    for path in (_folders(environ)[0] / name for name in FILES[:2]):
        if not token and (token := _text(path) or ""):
            place = str(path)
    if token and not re.fullmatch(r"[!-;=-z|~]+", token):  # nor JSON or HTML
        raise AccessDenied(f"no token in {place} (it is one word, like KGAT_...):{CORRECT}")
    # The client looks for a file of that name, and fails if it is too long; it finds ~/.kaggle/access_token itself.
    return Found(place, {"KAGGLE_API_TOKEN": token} if len(token) < 256 else {}) if token else None


def _legacy(environ: Mapping[str, str]) -> Found | None:
    """A user's name and key; variables override kaggle.json."""
    given = {name: value for name in LEGACY if (value := environ.get(name, "").strip(AROUND))}
    place, read, why = " and ".join(given), {}, "a name and a key are needed"
    if len(given) < len(LEGACY):
        files = (folder / "kaggle.json" for folder in _config_folders(environ))
        path, text = next(((path, text) for path in files if (text := _text(path)) is not None), (None, ""))
        if path is None:
            return None
        place = " and ".join([*given, str(path)])
        try:
            read = json.loads(text)
        except (ValueError, RecursionError) as error:
            why = str(error) if text else "it is empty"
    read = {name: read.get(key) for name, key in LEGACY.items()} if isinstance(read, dict) else {}
    pair = {name: value.strip(AROUND) for name, value in (read | given).items() if isinstance(value, str)}
    if not all(pair.get(name) for name in LEGACY):
        raise AccessDenied(f'{place} cannot be used ({why}; it is like {{"username": "...", "key": "..."}}):{CORRECT}')
    return Found(place, pair)


def _why_none(environ: Mapping[str, str]) -> str:
    user, configured = _folders(environ)[0], environ.get("KAGGLE_CONFIG_DIR")
    half = [name for name in LEGACY if environ.get(name, "").strip(AROUND)]
    if half:
        return f"{half[0]} is set, and {' and '.join(LEGACY.keys() - half)} is not:{CORRECT}"
    if configured:
        return f"KAGGLE_CONFIG_DIR names {configured}, which has no kaggle.json:{CORRECT}"
    if user.is_file():
        return f"{user} is a file, and must be a folder:{CORRECT}"
    names = printable(", ".join(sorted(path.name for path in user.glob("*"))[:3]))
    return f"no Kaggle credentials{f' ({user} has only {names})' if names else ''}: {CURE}"


def require_certificates(environ: Mapping[str, str]) -> None:
    """Raise UsageError if a variable names certificates that do not exist."""
    for name in CERTIFICATES:
        if (value := environ.get(name, "")) and not any(Path(place).exists() for place in value.split(os.pathsep)):
            raise UsageError(f"{name} names {value}, which is not there: correct it, or `unset {name}`")


def secrets(environ: Mapping[str, str]) -> list[str]:
    """All secrets within the client's reach, also in encoded form; long ones first."""
    users, keys = ({environ.get(name, "").strip(AROUND)} for name in LEGACY)
    files = [folder / name for folder in {*_folders(environ), *_config_folders(environ)} for name in FILES]
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_API_V1_TOKEN"):  # a token, or the name of a file with one
        keys.add(environ.get(name, "").strip(AROUND))
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
    """The JSON value without the secrets `kept`; `name` is its key.

    In names and tags only long secrets are hidden: a password like "test" may well be part of those.
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


def _text(path: Path) -> str | None:
    """A file's text, in any editor's encoding; None if the file is missing, AccessDenied if it is not readable text."""
    try:
        raw = path.read_bytes()
        return raw.decode(json.detect_encoding(raw)).strip(AROUND)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        why = "it is a folder; Docker creates one if the file to mount is missing"
    except UnicodeDecodeError:
        why = "it is not a text file"
    except (OSError, ValueError) as error:
        why = str(getattr(error, "strerror", error))
    raise AccessDenied(f"{path} cannot be read ({why}):{CORRECT}")


def _read(path: Path) -> tuple[str, set[str]]:
    """The user's name and the secrets in one of Kaggle's files."""
    try:
        text = _text(path) or ""
    except AccessDenied:  # a token, not a file name
        return "", set()
    with suppress(ValueError, RecursionError):
        values = json.loads(text)
        if isinstance(values, dict):
            kept = [str(values.get(name) or "") for name in ("key", "token", "access_token", "refresh_token")]
            return str(values.get("username") or ""), {key.strip(AROUND) for key in kept}
    return "", {text}


def _folders(environ: Mapping[str, str]) -> list[Path]:
    """The client's folders; none for a user unknown to the system, as in some containers."""
    try:
        home = Path(environ.get("HOME") or Path.home())
    except RuntimeError:
        home = Path("/nonexistent")
    return [home / ".kaggle", Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"]


def _config_folders(environ: Mapping[str, str]) -> list[Path]:
    configured = environ.get("KAGGLE_CONFIG_DIR")
    return [Path(os.path.expanduser(configured))] if configured else _folders(environ)  # noqa: PTH111 - which may raise


def main() -> int:
    """Exit code 0 if there are credentials, else 5 (or 2) and an error that says how to get them."""
    try:
        require(os.environ)
    except PipelineError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
