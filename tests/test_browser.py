"""Small pages with one defect each, and the same pages without it: only the first are found fault with."""

from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests import browser

PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAkQBADs="
LONG = "words that do not break ".replace(" ", "_") * 9
HEAD = (
    "<!doctype html><html lang='en'><title>T</title><style>body{font:16px sans-serif;color-scheme:light dark}</style>"
)

SCROLLS = f"<p style='overflow:auto' tabindex=0>{LONG}"
NAVY = "<div style='background:navy"

PAIRS = {  # a defect: the page with it, the page without it, and what is said of the first
    "sideways": (f"<p>{LONG}", f"<p style='overflow-wrap:anywhere'>{LONG}", "scrolls sideways"),
    "cut": (f"<p style='overflow:hidden'>{LONG}", SCROLLS, "hides what does not"),
    "out of the keyboard's reach": (f"<p style='overflow:auto'>{LONG}", SCROLLS, "hides what does not fit"),
    "small": ("<p style='font-size:9px'>a", "<p style='font-size:11px'>a", "smaller than 11 px"),
    "faint": ("<p style='color:#888'>a", "<p style='color:#707070'>a", "contrast of 3.54"),
    "faint on its ground": (f"{NAVY}'><p>a", f"{NAVY};color:white'><p>a", "contrast of 1.3"),
    "broken image": ("<img src='data:image/png,x' alt='a'>", f"<img src='{PIXEL}' alt='a'>", "shows nothing"),
    "no alt": (f"<img src='{PIXEL}'>", f"<img src='{PIXEL}' alt='a'>", "has no alt"),
    "error": ("<script>nothing()</script>", "<script>1</script>", "nothing is not defined"),
    "beside": ("<link rel=stylesheet href=a.css>", "<style>p{}</style>", "asks for file://"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_only_the_defective_page_is_found_fault_with(name: str, window: Page, tmp_path: Path) -> None:
    bad, good, said = PAIRS[name]
    found = []
    for body in (good, bad):
        page = tmp_path / "page.html"
        page.write_text(f"{HEAD}<body>{body}", "utf-8")
        found.append(browser.problems(window, page, 390, "light"))
    assert found[0] == [] and any(said in problem for problem in found[1]), found
