"""The child process that runs the official `kaggle` client: one call, one line of JSON as reply.

Run by path, it imports nothing of the pipeline.  The client prints noise, may call `exit()`, has no time limits and
authenticates on import; a process of its own contains that.  The request is one JSON line on stdin, `{"call": NAME,
...arguments}`; the reply is `{"ok": true, "value": ...}` or `{"ok": false, "kind": "credentials" | "install" | "usage"
| "disk" | "http" | "storage" | "network" | "other", "message": ..., "creating": ...}`.  "http" and "storage" add
`status` and `retry_after`; "usage" is about a proxy or a certificate.  `creating` is false only if this process
provably never sent the request that creates a submission or a kernel; no error text decides that, since a proxy or a
redirect may hide what happened.
"""

import functools
import importlib.util
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import requests

PAGE_SIZE = 200  # Kaggle's maximum
MAX_PAGES = 100
CREATING = {"submit": "/CreateSubmission", "push_kernel": "/SaveKernel"}  # the end of the URL that creates it
SENT: list[str] = []  # the URLs of this process's requests, noted before they are sent
API = re.compile(r"/v1/[\w.]+Service/\w+")  # in the URL of a call; anything else is storage
QUERY = re.compile(r"\?[^\s'\")]*=[^\s'\")]*")  # of a signed URL: it gives access to the file
SIGNED_PATH = re.compile(r"/[\w.=~%-]{80,}")  # the links to a kernel's output are signed in their path


class Unreadable(Exception):
    """Kaggle's reply makes no sense."""


class Unusable(Exception):
    """The client cannot use the credentials."""


# --- the calls ----------------------------------------------------------------------------------------------


def files(api: Any, slug: str) -> list[dict[str, Any]]:
    """Names and sizes of the competition's files."""
    pages = _pages(lambda token: api.competition_list_files(slug, page_token=token, page_size=PAGE_SIZE))
    return [{"name": file.name, "size": file.total_bytes} for page in pages for file in page.files]


def download(api: Any, slug: str, folder: str) -> None:
    """Download SLUG.zip into `folder`, resuming where an earlier child stopped."""
    api.competition_download_files(slug, path=folder, force=False, quiet=True)


def limits(api: Any, slug: str) -> dict[str, int]:
    """How many submissions were made today and are still allowed today."""
    response = api.competition_get_submission_limits(slug)
    today, total, allowed = response.num_today, response.num_total, response.num_allowed_now
    return {"today": today, "total": total, "allowed": allowed, "by_total": response.limited_by_total}


def submissions(api: Any, slug: str) -> list[dict[str, Any]]:
    """All submissions of this team, newest first."""
    from kagglesdk.competitions.types.competition_api_service import ApiListSubmissionsRequest  # noqa: PLC0415

    request = ApiListSubmissionsRequest()
    request.competition_name, request.page_size = slug, PAGE_SIZE

    def page(token: str) -> Any:
        request.page_token = token
        return kaggle.competitions.competition_api_client.list_submissions(request)

    with api.build_kaggle_client() as kaggle:
        return [_submission(item) for response in _pages(page) for item in response.submissions]


def submission(api: Any, ref: int) -> dict[str, Any]:
    """One submission by its ref."""
    from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionRequest  # noqa: PLC0415

    request = ApiGetSubmissionRequest()
    request.ref = ref
    with api.build_kaggle_client() as kaggle:
        return _submission(kaggle.competitions.competition_api_client.get_submission(request))


def submit(api: Any, slug: str, file: str, message: str) -> dict[str, Any]:
    """Upload `file` and submit it; `number` is its ref.

    If the upload fails, the client asks for no submission and returns a message that Kaggle might send, too.
    """
    response = api.competition_submit(file, message, slug, quiet=True)
    return {"number": response.ref or 0, "error": "" if _creating("submit") else response.message}


def username(api: Any) -> str:
    """The user of the credentials; "" if they do not name one."""
    return str(api.config_values.get("username") or "")


def push_kernel(api: Any, folder: str) -> dict[str, Any]:
    """Save the kernel in `folder` as a new version and run it; `number` is the version.

    A refusal may be a text in `error`.  A competition that the user has not joined is named in `invalid`, and the
    kernel runs without its files.
    """
    response = api.kernels_push(folder)
    invalid = list(response.invalid_competition_sources or [])
    return {"number": response.version_number or 0, "error": response.error or "", "invalid": invalid}


def kernel_status(api: Any, kernel: str) -> dict[str, str]:
    """The status of USER/NAME[/VERSION]."""
    response = api.kernels_status(kernel)
    return {"status": response.status.name, "message": response.failure_message or ""}


def kernel_output(api: Any, kernel: str, folder: str, pattern: str) -> None:
    """Download the output files whose names match `pattern` into `folder`, and the log as NAME.log."""
    api.kernels_output(kernel, folder, file_pattern=pattern, quiet=True, page_size=PAGE_SIZE)


def kernel_log(api: Any, kernel: str) -> str:
    """The output of a kernel."""
    return str(api.kernels_logs(kernel))


CALLS: dict[str, Callable[..., Any]] = {
    call.__name__: call
    for call in (
        files, download, limits, submissions, submission, submit, username, push_kernel, kernel_status, kernel_output,
        kernel_log,
    )
}  # fmt: skip


def _pages(page: Callable[[str], Any]) -> Iterator[Any]:
    """All pages of a list; Unreadable if it never ends."""
    token = ""
    for _ in range(MAX_PAGES):
        response = page(token)
        yield response
        token = response.next_page_token
        if not token:
            return
    raise Unreadable(f"its list has more than {MAX_PAGES} pages")


def _submission(item: Any) -> dict[str, Any]:
    return {
        "ref": item.ref,
        "date": item.date.isoformat() if item.date else "",
        "description": item.description or "",
        "file_name": item.file_name or "",
        "size": item.total_bytes or 0,
        "status": item.status.name,
        "public": "" if item.public_score is None else str(item.public_score),
        "private": "" if item.private_score is None else str(item.private_score),
        "error": item.error_description or "",
    }


# --- from a request to a reply ------------------------------------------------------------------------------


def _creating(call: str) -> bool:
    """Whether the request that creates something may have been sent."""
    return call in CREATING and (not SENT or any(url.endswith(CREATING[call]) for url in SENT))


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """Authenticate, call, and turn whatever happens into a reply."""
    try:
        api = _authenticated()
        # The client would retry a dead link or a full disk for a minute.
        api.download_file = functools.partial(api.download_file, max_retries=0)
        arguments = {name: value for name, value in request.items() if name != "call"}
        return {"ok": True, "value": CALLS[request["call"]](api, **arguments)}
    except Unusable as error:
        return {"ok": False, "kind": "credentials", "message": str(error)}
    except (Exception, SystemExit) as error:  # whatever the client raises becomes a reply
        # The client wraps the refusal of a kernel call; the refusal is the error's context.
        wrapped = error.__context__ if isinstance(error, ValueError) else None
        return _refusal(request["call"], wrapped if isinstance(wrapped, requests.HTTPError) else error)


def _authenticated() -> Any:
    """The client, which authenticates on import; Unusable for any error not about the network or a reply."""
    send = requests.Session.send

    def checked(session: requests.Session, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        SENT.append(str(request.url))
        response = send(session, request, **more)
        kind = response.headers.get("Content-Type", "")
        # Files come as a stream, may be HTML, and come from other hosts.
        if response.ok and "html" in kind and API.search(str(request.url)) and not more.get("stream"):
            text = "a web page came instead of its answer; does this network want a login in the browser?"
            raise requests.ConnectionError(text, request=request)
        is_answer = API.search(str(response.url)) and "json" in kind
        if is_answer and not isinstance(response.json(), dict):  # the client would take it for an empty list
            raise Unreadable(f"{response.text[:60]!r} is not a JSON object")
        return response

    requests.Session.send = checked
    try:
        import kaggle  # noqa: PLC0415

        api = kaggle.api
    except Exception as error:
        spec = importlib.util.find_spec("kaggle")  # perhaps a kaggle.py of the user's
        raise ImportError(f"{error}{f'; kaggle is {spec.origin}' if spec else ''}") from error
    try:
        if not getattr(api, "_authenticated", False):
            api.authenticate()
    except (OSError, Unreadable):
        raise
    except SystemExit:
        raise Unusable("unknown or expired") from None
    except Exception as error:
        raise Unusable(_message(error)) from error
    return api


def _refusal(call: str, error: BaseException) -> dict[str, Any]:
    """The reply to `call` for an error."""
    reply: dict[str, Any] = {"ok": False, "kind": "other", "message": _message(error), "creating": _creating(call)}
    match error:
        case ImportError():
            reply["kind"] = "install"
        case requests.exceptions.InvalidJSONError() | requests.exceptions.TooManyRedirects():
            pass
        case requests.RequestException(response=requests.Response() as response):
            reply["kind"] = "http" if API.search(str(response.url)) else "storage"
            reply["status"], reply["retry_after"] = _status(response), response.headers.get("Retry-After")
        case requests.RequestException():
            reply["kind"], reply["message"] = _on_the_way(error) or ("network", reply["message"])
        case ConnectionError() | TimeoutError():
            reply["kind"] = "network"
        case OSError():  # this machine's own refusal
            reply["kind"] = "disk"
    return reply


# Texts of requests about a failed proxy or certificate, the reply's kind, and the message to show instead, because the
# text may contain part of the proxy's password.
ON_THE_WAY = (
    (r"certificate verify failed: (certificate has expired|certificate is not yet valid)", "usage",
     "the server's certificate is not accepted ({found}): is this machine's clock right?  It says {now}"),
    (r"certificate verify failed: ([^(]*[^( ])", "usage",
     "the server's certificate is not accepted ({found}): "
     "behind a company's proxy, name the file of its CA in REQUESTS_CA_BUNDLE"),
    (r"407 Proxy Auth", "usage", "the proxy in {proxy} wants a user and a password: http://USER:PASSWORD@HOST:PORT"),
    (r"(Tunnel connection failed: [\w ]+)", "network", "the proxy in {proxy} refuses: {found}"),
    (r"appears to only use HTTP", "usage", "the proxy in {proxy} is reached by http://, not https://"),
    (r"Unable to connect to proxy.*(?:NewConnection|NameResolution|ConnectTimeout)Error", "network",
     "the proxy in {proxy} does not answer"),
    (r"dependencies for SOCKS", "usage",
     "the proxy in {proxy} needs a package that is not installed: pip install pysocks"),
    (r"(?:proxy URL|Proxy URL|Failed to parse)", "usage",
     "{proxy} is not the address of a proxy, which is like http://HOST:PORT"),
)  # fmt: skip


def _on_the_way(error: requests.RequestException) -> tuple[str, str] | None:
    """Kind and message, if a proxy or a certificate failed."""
    faults = requests.exceptions
    if isinstance(error, faults.InvalidURL) and not (error.request or isinstance(error, faults.InvalidProxyURL)):
        return None  # an address from Kaggle
    proxy = _proxy(str(error.request.url) if error.request is not None else "https://api.kaggle.com")
    for pattern, kind, message in ON_THE_WAY:
        if (match := re.search(pattern, str(error))) and (proxy or "{proxy}" not in message):
            return kind, message.format(
                proxy=proxy, found=match[match.lastindex or 0], now=time.strftime("%Y-%m-%d %H:%M %z")
            )
    return None


def _proxy(url: str) -> str:
    """The variable that sets the proxy for `url`, and the proxy without its password; "" if there is none."""
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    names = [name for name, value in os.environ.items() if value == proxy and name.lower().endswith("_proxy")]
    return f"{min(names)} ({str(proxy).rpartition('@')[2]})" if names else ""


def _status(response: requests.Response) -> int:
    """The reply's status; a refusal may come with 200 and a status in the body."""
    status: int = response.status_code
    if status < 400:
        with suppress(Exception):
            status = int(response.json()["code"])
    return status


def _message(error: BaseException) -> str:
    """The error's text without the secrets that the parent cannot know: signed URLs, a renewed OAuth token."""
    # For a failed connection, requests mostly describes the request; the reason says what failed.
    reason = getattr(next(iter(error.args), None), "reason", None) or error
    message = SIGNED_PATH.sub("/***", QUERY.sub("?***", f"{type(error).__name__}: {reason}"))
    api = getattr(sys.modules.get("kaggle"), "api", None)
    token = getattr(api, "config_values", {}).get("token")
    return message.replace(token, "***") if token else message


def _die_with_parent() -> None:
    """Exit when the parent, which keeps our stdin open, dies in any way.

    Does not read `sys.stdin`, whose lock would block the client's `exit()`.
    """
    with suppress(OSError):
        while os.read(0, 4096):
            pass
        os._exit(1)


def main() -> None:
    """Read one request and reply on the real stdout; all other output is dropped."""
    real_stdout = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        with os.fdopen(real_stdout, "w") as stream:
            stream.write("\n" + json.dumps(handle(request)))  # the last line; a sitecustomize may have printed others
    finally:
        os._exit(0)  # the reader of stdin would block a normal exit


if __name__ == "__main__":
    main()
