"""What needs starting once for several tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page


# For a module and not for the session: while it is open, asyncio.run() is refused in this thread.
@pytest.fixture(scope="module")
def window() -> Iterator["Page"]:
    """A window of a real Chromium, for tests.browser.looked_at; without one, the test is skipped."""
    from tests.browser import chromium, opened

    program = chromium()
    if program is None:
        pytest.skip("no Chromium: set $CHROMIUM or install one")
    with opened(program) as window:
        yield window


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long tests, which have a time limit of their own, come first: at the end one worker would wait for them."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


@pytest.fixture(scope="module")
def quick_client() -> Iterator[None]:
    """The kaggle client's calls from this process take a tenth of their time; see tests.forked_client."""
    from tests.forked_client import forked_client

    with forked_client():
        yield


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder in which a run has been trained and its CSV written; not every name is ASCII."""
    from tests.support import predicted_place

    return predicted_place(tmp_path / "Übung 1")
