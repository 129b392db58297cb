"""CIFAR-10 from its home page, for competitions that carry no training data."""

import socket
from pathlib import Path

import tenacity

from pipeline.errors import NetworkError, printable

ARCHIVE = "cifar-10-python.tar.gz"
TIMEOUT = 60.0  # seconds without a byte
TRIES = 3


def fetch(cache: Path, url: str | None = None, md5: str | None = None, backoff: float = 2.0) -> Path:
    """Download the archive into `cache` with torchvision's downloader and its MD5; one that is good is kept.

    Raises:
        NetworkError: the home page cannot be reached, or sends something else.
    """
    from torchvision.datasets import CIFAR10  # noqa: PLC0415 - seconds to import, and seldom needed
    from torchvision.datasets.utils import download_url  # noqa: PLC0415

    cache.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torchvision's downloader knows none
    try:
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((OSError, RuntimeError)),
            stop=tenacity.stop_after_attempt(TRIES),
            wait=tenacity.wait_exponential(multiplier=backoff, max=60),
            reraise=True,
        ):
            with attempt:
                download_url(url or CIFAR10.url, str(cache), ARCHIVE, md5 or CIFAR10.tgz_md5)
    except (OSError, RuntimeError) as error:  # RuntimeError is torchvision's word for a wrong MD5
        raise NetworkError(
            f"CIFAR-10 did not come ({printable(error)}): run again, or put {ARCHIVE} into {cache}"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    return cache / ARCHIVE
