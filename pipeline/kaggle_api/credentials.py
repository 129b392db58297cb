"""Are there credentials for Kaggle?  Looks, never reads more than it must, and prints no secret.

Run by any Python 3.11, before anything is installed: `python3 -m pipeline.kaggle_api.credentials`.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import AccessDenied

CURE = (
    "create a token at https://www.kaggle.com/settings (API) and put it into ~/.kaggle/access_token or "
    "KAGGLE_API_TOKEN; a legacy ~/.kaggle/kaggle.json, or KAGGLE_USERNAME and KAGGLE_KEY, will do as well; "
    "`./run_all.sh --rehearsal` needs none"
)


def require(environ: Mapping[str, str]) -> str:
    """Where the genuine client will find credentials, looking in its order.

    Raises:
        AccessDenied: there are none, or kaggle.json has the wrong shape.
    """
    home = Path(environ.get("HOME") or Path.home())
    if environ.get("KAGGLE_API_TOKEN"):
        return "KAGGLE_API_TOKEN"
    if environ.get("KAGGLE_KERNEL_RUN_TYPE") and environ.get("KAGGLE_API_V1_TOKEN"):
        return "the Kaggle notebook's token"
    for name in ("access_token", "access_token.txt"):
        if _has_content(home / ".kaggle" / name):
            return f"~/.kaggle/{name}"
    if environ.get("KAGGLE_USERNAME") and environ.get("KAGGLE_KEY"):
        return "KAGGLE_USERNAME and KAGGLE_KEY"
    folders = [home / ".kaggle", Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"]
    if environ.get("KAGGLE_CONFIG_DIR"):
        folders = [Path(environ["KAGGLE_CONFIG_DIR"])]
    for path in (folder / "kaggle.json" for folder in folders):
        if path.is_file():
            _check_kaggle_json(path)
            return str(path)
    if _has_content(home / ".kaggle" / "credentials.json"):
        return "~/.kaggle/credentials.json"
    raise AccessDenied(f"no Kaggle credentials: {CURE}")


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _check_kaggle_json(path: Path) -> None:
    try:
        values = json.loads(path.read_bytes())
        good = all(isinstance(values[key], str) and values[key] for key in ("username", "key"))
    except (OSError, ValueError, TypeError, KeyError):
        good = False
    if not good:
        raise AccessDenied(f'{path} cannot be read or is not of the shape {{"username": "...", "key": "..."}}: {CURE}')


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
