"""The child process in which the genuine `kaggle` client runs: one call, answered in one line of JSON.

It stands alone: run by path, it imports nothing of the pipeline.  The client prints noise, may call
`exit()`, has no time limits and authenticates on import; here that harms nobody.  The request is one JSON
line on stdin, `{"call": NAME, ...arguments}`; the answer is `{"ok": true, "value": ...}` or
`{"ok": false, "kind": "credentials" | "install" | "disk" | "http" | "storage" | "network" | "other",
"message", ...}`.
"""

import errno
import functools
import json
import os
import re
import sys
import threading
from contextlib import suppress
from typing import Any

import requests

PAGE_SIZE = 200  # the most that Kaggle gives at once
MAX_PAGES = 500
LOCAL = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
}  # this machine's own
CREATING = {"submit": "/CreateSubmission"}  # calls that make something, and the end of the URL that does
API = re.compile(r"/v1/[\w.]+Service/\w+")  # in the URL of a call; anything else is storage
QUERY = re.compile(r"\?[^\s'\")]*=[^\s'\")]*")  # of a signed URL: whoever has it has the file
SIGNED_PATH = re.compile(r"/[\w.=~%-]{80,}")  # the links to a kernel's output are signed in their path


class Unreadable(Exception):
    """Kaggle's answer cannot be meant so."""


class Unusable(Exception):
    """The client can make nothing of the credentials."""


def files(api: Any, slug: str) -> list[dict[str, Any]]:
    """Names and sizes of the competition's files."""
    found: list[dict[str, Any]] = []
    token = ""
    for _ in range(MAX_PAGES):
        response = api.competition_list_files(slug, page_token=token, page_size=PAGE_SIZE)
        found += [{"name": file.name, "size": file.total_bytes} for file in response.files]
        token = _next_page(token, response.next_page_token)
        if not token:
            return found
    raise Unreadable(f"its list of files has more than {MAX_PAGES} pages")


def download(api: Any, slug: str, folder: str) -> None:
    """Download SLUG.zip into `folder`, going on where an earlier child stopped.

    The client's own tries are switched off: for a minute they would go on with a dead link, or with a full disk.
    """
    api.download_file = functools.partial(api.download_file, max_retries=0)
    api.competition_download_files(slug, path=folder, force=False, quiet=True)


def limits(api: Any, slug: str) -> dict[str, int]:
    """How many submissions were made today and are still allowed today."""
    answer = api.competition_get_submission_limits(slug)
    return {
        "today": answer.num_today,
        "total": answer.num_total,
        "allowed": answer.num_allowed_now,
        "by_total": answer.limited_by_total,
    }


def submissions(api: Any, slug: str) -> list[dict[str, Any]]:
    """All submissions of this team, newest first, over all pages."""
    from kagglesdk.competitions.types.competition_api_service import (  # noqa: PLC0415
        ApiListSubmissionsRequest,
    )

    found: list[dict[str, Any]] = []
    request = ApiListSubmissionsRequest()
    request.competition_name, request.page_size = slug, PAGE_SIZE
    with api.build_kaggle_client() as kaggle:
        for _ in range(MAX_PAGES):
            response = kaggle.competitions.competition_api_client.list_submissions(request)
            found += [_submission(item) for item in response.submissions]
            token = _next_page(request.page_token, response.next_page_token)
            if not token:
                return found
            request.page_token = token
    raise Unreadable(f"its list of submissions has more than {MAX_PAGES} pages")


def _next_page(token: str, following: str) -> str:
    """The token of the page after that of `token`; a list that is not seen to its end must not pass for one."""
    if following and following == token:
        raise Unreadable("each page of its list leads to itself")
    return following


def submission(api: Any, ref: int) -> dict[str, Any]:
    """One submission by its ref."""
    from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionRequest  # noqa: PLC0415

    request = ApiGetSubmissionRequest()
    request.ref = ref
    with api.build_kaggle_client() as kaggle:
        return _submission(kaggle.competitions.competition_api_client.get_submission(request))


def submit(api: Any, slug: str, file: str, message: str) -> dict[str, Any]:
    """Upload `file` and submit it; `ref` is 0 when the client gives none.

    When the upload fails the client asks for no submission, and tells so by its message alone.
    """
    response = api.competition_submit(file, message, slug, quiet=True)
    uploaded = response.message != api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE
    return {"ref": response.ref or 0, "message": response.message or "", "uploaded": uploaded}


def _submission(item: Any) -> dict[str, Any]:
    return {
        "ref": item.ref,
        "date": item.date.isoformat() if item.date else "",
        "description": item.description or "",
        "file_name": item.file_name or "",
        "size": item.total_bytes or 0,
        "status": item.status.name,
        "public": _score(item.public_score),
        "private": _score(item.private_score),
        "error": item.error_description or "",
    }


def _score(value: Any) -> str:
    """Kaggle's text, or "" for what is no share of right answers: that is no score yet."""
    try:
        return str(value) if 0 <= float(value) <= 1 else ""
    except (TypeError, ValueError, OverflowError):
        return ""


CALLS = {call.__name__: call for call in (files, download, limits, submissions, submission, submit)}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Authenticate, call, and turn whatever happens into an answer."""
    try:
        api = _authenticated()
        arguments = {name: value for name, value in request.items() if name != "call"}
        return {"ok": True, "value": CALLS[request["call"]](api, **arguments)}
    except (SystemExit, Unusable):
        return {"ok": False, "kind": "credentials", "message": "the client found no usable credentials"}
    except ImportError as error:
        return _refusal("install", error)
    except (requests.exceptions.InvalidJSONError, requests.exceptions.TooManyRedirects) as error:
        return _refusal("other", error, creating=request["call"] in CREATING)
    except requests.exceptions.RequestException as error:
        return _request_failed(request, error)
    except OSError as error:
        return _refusal("disk" if error.errno in LOCAL else "network", error, creating=request["call"] in CREATING)
    except Exception as error:  # whatever the client raises becomes an answer
        return _refusal("other", error, creating=request["call"] in CREATING)


def _authenticated() -> Any:
    """The client, which authenticates when it is imported.

    Whatever it raises then means that it cannot read the credentials, unless Kaggle has answered: that is listened to.
    """
    heard: list[requests.Response] = []
    send = requests.Session.send

    def listening(session: requests.Session, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        response = send(session, request, **more)
        heard.append(response)
        _check_answer(response)
        return response

    try:
        requests.Session.send = listening
        import kaggle  # noqa: PLC0415

        api = kaggle.api
        api.get_response_processor = lambda: _check_answer
        if not getattr(api, "_authenticated", False):
            api.authenticate()
    except (ImportError, OSError, Unreadable):
        raise
    except Exception as error:
        if heard:  # it is Kaggle's answer that makes no sense
            raise
        raise Unusable from error
    finally:
        requests.Session.send = send
    return api


def _check_answer(response: requests.Response) -> None:
    """The client takes any JSON for an answer without fields: for an empty list."""
    is_answer = API.search(str(response.url)) and "json" in response.headers.get("Content-Type", "")
    if is_answer and not isinstance(response.json(), dict):
        raise Unreadable(f"{response.text[:60]!r} is no JSON object")


def _request_failed(request: dict[str, Any], error: requests.exceptions.RequestException) -> dict[str, Any]:
    """A refusal; `creating` tells whether it was the very request that makes a submission, or a kernel."""
    sent = error.request if error.response is None else error.response.request
    end = CREATING.get(request["call"])
    creating = end is not None and (sent is None or str(sent.url).endswith(end))
    if error.response is None:
        return _refusal("network", error, creating=creating)
    after = error.response.headers.get("Retry-After")
    kind = "http" if API.search(str(error.response.url)) else "storage"
    return _refusal(kind, error, creating=creating, status=_status(error.response), retry_after=after)


def _status(response: requests.Response) -> int:
    """The answer's status; a refusal may come with 200 and have its own in the body."""
    status: int = response.status_code
    if status < 400:
        with suppress(Exception):
            status = int(response.json()["code"])
    return status


def _refusal(kind: str, error: Exception, **more: Any) -> dict[str, Any]:
    message = SIGNED_PATH.sub("/***", QUERY.sub("?***", f"{type(error).__name__}: {error}"))
    for secret in _secrets():
        message = message.replace(secret, "***")
    return {"ok": False, "kind": kind, "message": message, **more}


def _secrets() -> set[str]:
    """Whatever the client may have authenticated with."""
    found = {os.environ.get(name, "") for name in ("KAGGLE_KEY", "KAGGLE_API_TOKEN")}
    with suppress(Exception):  # a half-imported client knows no secret
        import kaggle  # noqa: PLC0415
        from kagglesdk.kaggle_env import get_access_token_from_env  # noqa: PLC0415

        found |= {str(kaggle.api.config_values.get(name) or "") for name in ("key", "token")}
        found.add(get_access_token_from_env()[0] or "")
    return found - {""}


def _die_with_parent() -> None:
    """The parent keeps our stdin open; when it dies, however it dies, so do we.

    Read without `sys.stdin`, whose lock would hold up the client's `exit()`: that closes it first.
    """
    with suppress(OSError):
        while os.read(0, 4096):
            pass
        os._exit(1)


def main() -> None:
    """Read one request, answer it on the real stdout; everything else goes nowhere."""
    real_stdout = os.dup(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with os.fdopen(real_stdout, "w") as stream:
        json.dump(answer(request), stream)
    os._exit(0)  # the reader of stdin would hold a normal exit up


if __name__ == "__main__":
    main()
