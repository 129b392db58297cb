"""The calls for kernels, in a child process as child.py's: run by path, the same protocol, nothing of the pipeline.

What kaggle 2.2.3 to 2.2.5 (kagglesdk 0.1.36 to 0.1.38) do, read in their source.  Each call is
`POST <base>/kernels.KernelsApiService/<Call>`, JSON, lowerCamel fields:

    GetKernel                userName, kernelSlug           metadata {currentVersionNumber, ...}, blob {source, ...}
    SaveKernel               slug (USER/NAME), newTitle, text, language, kernelType, isPrivate, enableGpu,
                             enableInternet, competitionDataSources, machineShape, ...
                                                            ref, url, versionNumber, error, invalid...Sources
    GetKernelSessionStatus   userName, kernelSlug, versionLabel              status, failureMessage
    ListKernelSessionOutput  userName, kernelSlug, versionLabel, page...     files [{fileName, url}], log, nextPageToken

- `kernels_push` sends the metadata's `code_file` as `text`, once; each push makes a new version, and runs it.
- A refusal may come with status 200 and a text in `error`; a competition that the user has not joined is left out,
  and named in `invalidCompetitionSources`, while the kernel runs without it.
- A kernel that does not exist is answered 403 ("Permission 'kernels.get' was denied") or 404.
- `versionLabel` is `v` and the number.
- The links to a kernel's output are signed, and fetched without credentials; sizes are not listed.
- The user's name is in kaggle.json; of an access token IntrospectToken tells it when the client is imported.
"""

import importlib.util
from pathlib import Path
from typing import Any

import requests

PAGE_SIZE = 100
MAX_PAGES = 50
ABSENT = (403, 404)  # how Kaggle answers for a kernel that is not there
CHUNK = 1024 * 1024  # bytes

_spec = importlib.util.spec_from_file_location("child", Path(__file__).with_name("child.py"))
assert _spec is not None and _spec.loader is not None
child = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(child)


def find_kernel(api: Any, name: str) -> dict[str, Any]:
    """The user's name, and the kernel NAME of theirs: its source and version; the source is None if there is none."""
    from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelRequest  # noqa: PLC0415

    user = str(api.config_values.get("username") or "")
    request = ApiGetKernelRequest()
    request.user_name, request.kernel_slug = user, name
    try:
        with api.build_kaggle_client() as kaggle:
            found = kaggle.kernels.kernels_api_client.get_kernel(request)
    except requests.HTTPError as error:
        if error.response is None or child._status(error.response) not in ABSENT:
            raise
        return {"user": user, "source": None, "version": 0}
    if found.blob is None or found.metadata is None:
        raise child.Unreadable("its answer has no kernel")
    return {"user": user, "source": found.blob.source or "", "version": found.metadata.current_version_number or 0}


def push_kernel(api: Any, folder: str) -> dict[str, Any]:
    """Save the kernel in `folder` as a new version and run it."""
    answer = api.kernels_push(folder)
    return {
        "version": answer.version_number or 0,
        "error": answer.error or "",
        "invalid": list(answer.invalid_competition_sources or []),
    }


def kernel_session(api: Any, user: str, name: str, version: int) -> dict[str, str]:
    """How the run of a version stands."""
    from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionStatusRequest  # noqa: PLC0415

    request = _session_request(ApiGetKernelSessionStatusRequest(), user, name, version)
    with api.build_kaggle_client() as kaggle:
        answer = kaggle.kernels.kernels_api_client.get_kernel_session_status(request)
    return {"status": answer.status.name, "message": answer.failure_message or ""}


def kernel_output(api: Any, user: str, name: str, version: int, wanted: dict[str, Any]) -> dict[str, Any]:
    """Bring the output files that are `wanted`, name -> [path, most bytes]; the names of those that came, and the log.

    What an earlier child brought whole stays.  The names come from the caller: Kaggle's are compared, never used.
    """
    from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest  # noqa: PLC0415

    request = _session_request(ApiListKernelSessionOutputRequest(), user, name, version)
    request.page_size = PAGE_SIZE
    links: dict[str, str] = {}
    log = ""
    with api.build_kaggle_client() as kaggle:
        for _ in range(MAX_PAGES):
            answer = kaggle.kernels.kernels_api_client.list_kernel_session_output(request)
            links |= {file.file_name: file.url for file in answer.files or [] if file.file_name in wanted}
            log = log or answer.log or ""
            token = child._next_page(request.page_token, answer.next_page_token)
            if not token:
                break
            request.page_token = token
        else:
            raise child.Unreadable(f"its list of output files has more than {MAX_PAGES} pages")
    for file_name, url in links.items():
        path, most = wanted[file_name]
        _bring(url, Path(path), most)
    return {"files": sorted(links), "log": log}


def _session_request(request: Any, user: str, name: str, version: int) -> Any:
    request.user_name, request.kernel_slug = user, name
    if version:
        request.version_label = f"v{version}"
    return request


def _bring(url: str, path: Path, most: int) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part, came = path.with_name(f"{path.name}.part"), 0
    with requests.get(url, stream=True, timeout=300) as response, part.open("wb") as stream:
        response.raise_for_status()
        for chunk in response.iter_content(CHUNK):
            came += len(chunk)
            if came > most:
                raise child.Unreadable(f"a file of its output has more than {most:,} bytes")
            stream.write(chunk)
    part.replace(path)


child.CALLS.update({call.__name__: call for call in (find_kernel, push_kernel, kernel_session, kernel_output)})
child.CREATING["push_kernel"] = "/SaveKernel"

if __name__ == "__main__":
    child.main()
