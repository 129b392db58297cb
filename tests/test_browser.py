"""Small pages with one defect each, and the same pages without it: only the first are found fault with."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests import browser
from tests.browser import Look, Media, Scheme, looked_at

HEAD = '<meta charset="utf-8"><title>T</title><meta name="viewport" content="width=device-width">'
STYLE = (
    "<style>body{margin:16px;font:16px sans-serif;color-scheme:light dark}svg{font:16px sans-serif;fill:#777}</style>"
)
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAkQBADs="  # black
SVG = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"


@dataclass(frozen=True)
class Pair:
    """The bodies of two pages, and what is said of the first; of the second nothing is."""

    bad: str
    good: str
    said: str
    width: int = 600
    scheme: Scheme = "light"
    media: Media = "screen"


def drawing(inside: str, attributes: str = 'width="200" height="100" viewBox="0 0 200 100"') -> str:
    return f'<svg {attributes} aria-label="plot" style="background:white;fill:#333">{inside}</svg>'


def at(x: int, y: int, text: str, attributes: str = "") -> str:
    return f'<text x="{x}" y="{y}" {attributes}>{text}</text>'


def turned(x: int, y: int, text: str, angle: int) -> str:
    return at(x, y, text, f'transform="rotate({angle} {x} {y})"')


WORDS = "many words in a row that is wider than the box around it"

PAIRS = {
    "small": Pair('<p style="font-size:10px">tiny', '<p style="font-size:11px">tiny', 'text "tiny" is 10.0 px large'),
    "small by a transform": Pair(
        '<p style="transform:scale(.6);transform-origin:0 0">tiny', "<p>tiny", 'text "tiny" is 9.6 px large'
    ),
    "small in a shrunken drawing": Pair(
        drawing(at(0, 60, "tiny"), 'width="100" height="50" viewBox="0 0 200 100"'),
        drawing(at(0, 60, "tiny"), 'width="150" height="75" viewBox="0 0 200 100"'),
        'text "tiny" is 8.0 px large',
    ),
    "overlap of paragraphs": Pair(
        '<p style="margin:0">one<p style="margin:-11px 0 0">two', "<p>one<p>two", 'texts "one" and "two" overlap'
    ),
    "overlap of tight lines": Pair(
        '<div style="line-height:.6">one Åg</div><div>two Åg</div>',
        '<div style="line-height:1">one</div><div style="line-height:1">two <b>bold</b><sup>1</sup></div>',
        'texts "one Åg" and "two Åg" overlap',
    ),
    "overlap in a drawing": Pair(
        drawing(at(0, 50, "one") + at(20, 50, "two")),
        drawing(at(0, 50, "one") + at(0, 68, "two") + '<text x="80" y="50">two<tspan dy="-4">3</tspan></text>'),
        'texts "one" and "two" overlap',
    ),
    "overlap of slanted texts": Pair(
        drawing(turned(20, 10, "a long name", 45) + turned(28, 10, "another", 45)),
        drawing(turned(20, 10, "a long name", 45) + turned(55, 10, "another", 45)),  # their upright boxes do overlap
        'texts "a long name" and "another" overlap',
    ),
    "overlap of a drawing and a paragraph": Pair(
        drawing(at(0, 98, "in")) + '<p style="margin:-20px 0 0">under',
        drawing(at(0, 98, "in")) + "<p>under",
        'texts "in" and "under" overlap',
    ),
    "cut by a drawing's edge": Pair(
        drawing(at(160, 50, "outside")), drawing(at(100, 50, "outside")), 'text "outside" is cut'
    ),
    "cut by a drawing's edge, slanted": Pair(
        drawing(turned(20, 40, "outside a lot", 60)),
        drawing(turned(20, 5, "outside", 60)),
        'text "outside a lot" is cut',
    ),
    "cut by a clip path": Pair(
        '<svg width="200" height="50" aria-label="plot" style="background:white;fill:#333"><clipPath id="c"><rect '
        'width="30" height="50"/></clipPath><g clip-path="url(#c)"><text y="30">outside</text></g></svg>',
        '<svg width="200" height="50" aria-label="plot" style="background:white;fill:#333"><clipPath id="c"><rect '
        'width="90" height="50"/></clipPath><g clip-path="url(#c)"><text y="30">outside</text></g></svg>',
        'text "outside" is cut',
    ),
    "cut by a box": Pair(
        f'<div style="width:150px;overflow:hidden;white-space:nowrap">{WORDS}',
        f'<div style="width:150px;overflow:hidden">{WORDS}',
        "is cut",
    ),
    "cut below": Pair(
        f'<div style="width:150px;height:30px;overflow:clip">{WORDS}', f'<div style="width:150px">{WORDS}', "is cut"
    ),
    "cut by the page's left edge": Pair('<p style="margin-left:-40px">words', "<p>words", 'text "words" is cut'),
    "cut by paper, which does not scroll": Pair(
        f'<div tabindex="0" style="width:150px;overflow:auto;white-space:nowrap">{WORDS}',
        f'<div tabindex="0" style="width:150px;overflow:auto">{WORDS}',
        "is cut",
        media="print",
    ),
    "sideways": Pair(
        '<div style="width:700px">wide',
        '<div style="max-width:700px">wide',
        "the page scrolls sideways: 716 px in 390",
        390,
    ),
    "out of the keyboard's reach": Pair(
        f'<div style="overflow-x:auto"><table style="white-space:nowrap"><td>{WORDS}</table></div>',
        f'<div style="overflow-x:auto" tabindex="0"><table style="white-space:nowrap"><td>{WORDS}</table></div>',
        "the keyboard does not reach it",
        300,
    ),
    "no alt": Pair(f'<img src="{PIXEL}">', f'<img src="{PIXEL}" alt="a dot">', "<img> has no alt"),
    "SVG in an image": Pair(f'<img src="{SVG}" alt="a">', f'<img src="{PIXEL}" alt="a">', "cannot be looked at"),
    "broken image": Pair('<img src="data:image/png,x" alt="a">', f'<img src="{PIXEL}" alt="a">', "shows nothing"),
    "unnamed drawing": Pair(
        '<svg role="img"><rect/></svg>',
        "<svg role='img'><title>plot</title></svg><svg aria-hidden='true'></svg>",
        "<svg> has no title",
    ),
    "letters as outlines": Pair(
        drawing('<g id="text_1"><path d="M0 0h9v9z"/></g>'),
        drawing('<g id="text_1"><text y="50">a</text></g>'),
        "outlines",
    ),
    "faint": Pair(
        '<p style="color:#888">faint', '<p style="color:#707070">faint', 'text "faint" has a contrast of 3.54'
    ),
    "faint in the dark": Pair(
        '<p style="color:#707070">faint', '<p style="color:#888">faint', 'text "faint" has a contrast of', scheme="dark"
    ),
    "faint by its opacity": Pair(
        '<p style="opacity:.4">faint', '<p style="opacity:.8">faint', 'text "faint" has a contrast of'
    ),
    "faint on its background": Pair(
        '<div style="background:navy"><p style="background:#fff1">faint',
        '<div style="background:navy;color:white"><p style="background:#fff1">faint',
        'text "faint" has a contrast of',
    ),
    "faint on paper, which has no background": Pair(
        '<p style="background:navy;color:white">faint',
        '<p style="background:navy;color:white;print-color-adjust:exact">faint',
        'text "faint" has a contrast of 1.00',
        media="print",
    ),
    "faint in a drawing": Pair(
        drawing(at(9, 50, "faint", 'fill="#999"')),
        drawing(at(9, 50, "faint", 'fill="#666"')),
        'text "faint" has a contrast',
    ),
    "faint on a shape": Pair(
        drawing('<path d="M0 0h200v100h-200z"/>' + at(9, 50, "faint", 'fill="#333"')),
        drawing('<path d="M0 0h200v100h-200z"/>' + at(9, 50, "faint", 'fill="#fff"')),
        'text "faint" has a contrast of 1.00',
    ),
    "faint on an image": Pair(
        drawing(f'<image href="{PIXEL}" width="200" height="100"/>' + at(9, 50, "faint")),
        drawing(f'<image href="{PIXEL}" width="200" height="100"/>' + at(9, 50, "faint", 'fill="#fff"')),
        'text "faint" has a contrast of',
    ),
    "skipped heading": Pair("<h1>a</h1><h3>b</h3>", "<h1>a</h1><h2>b</h2><h1>c</h1>", 'heading "b" is H3 below H1'),
    "first heading": Pair("<h2>a</h2>", "<h1>a</h1>", 'heading "a" is H2 and the first'),
    "id twice": Pair('<p id="a">x<p id="a">y', '<p id="a">x<p id="b">y', "ids are given more than once: a"),
    "dead link": Pair(
        '<a href="#b">x</a>', '<a id="b" href="#b">x</a> <a href="#top">y</a>', "nothing has the id b", scheme="dark"
    ),
    "dead description": Pair(
        '<p aria-describedby="b">x', '<p id="b" aria-describedby="b">x', "nothing has the id b, which is referred to"
    ),
    "folded in print": Pair(
        "<details><summary>more</summary><p>words</details>",
        "<style>@media print{details::details-content{content-visibility:visible}}</style>"
        "<details><summary>more</summary><p>words</details><details open><summary>more</summary>text</details>",
        "is folded in print",
        media="print",
    ),
    "loaded late": Pair(
        '<img loading="lazy" style="margin-top:9999px" width="9" height="9" src="http://127.0.0.1:9/late" alt="a">',
        f'<img loading="lazy" style="margin-top:9999px" width="9" height="9" src="{PIXEL}" alt="a">',
        "<img> is not in the page: http://127.0.0.1:9/late",
    ),
    "loaded in print": Pair(
        "<style>@media print{body{background:url(//127.0.0.1:9/paper)}}</style>",
        f'<style>@media print{{body{{background:url("{PIXEL}")}}}}</style>',
        "CSS is not in the page: //127.0.0.1:9/paper",
    ),
}


def written(folder: Path, body: str, head: str = HEAD, html: str = '<html lang="en">') -> Path:
    page = folder / "page.html"
    page.write_text(f"<!doctype html>{html}{head}{STYLE}<body>{body}", "utf-8")
    return page


@pytest.mark.parametrize("name", PAIRS)
def test_of_two_pages_only_the_defective_is_found_fault_with(name: str, window: Page, tmp_path: Path) -> None:
    pair = PAIRS[name]

    def problems(body: str) -> list[str]:
        return looked_at(window, written(tmp_path, body), pair.width, pair.scheme, pair.media).problems

    found = problems(pair.bad)
    assert any(pair.said in problem for problem in found), found
    assert problems(pair.good) == []


def test_the_head_says_what_a_browser_must_know(window: Page, tmp_path: Path) -> None:
    bare = written(tmp_path, "words", head='<meta charset="utf-8">', html="<html>")
    assert looked_at(window, bare, 600, "light").problems == [
        "<html> has no lang",
        "the page has no title",
        "the page has no viewport for phones",
    ]


def test_what_the_page_asks_for_and_complains_of(window: Page, tmp_path: Path) -> None:
    (tmp_path / "beside.css").write_text("p {color: navy}")
    body = f'<link rel="stylesheet" href="beside.css"><img src="{PIXEL}" alt="a"><script>nothing()</script>'
    look = looked_at(window, written(tmp_path, body), 600, "light")
    assert look.requests == [(tmp_path / "beside.css").as_uri()]
    assert look.console == ["nothing is not defined"]
    assert len(look.problems) == 3, look.problems  # a request, an error, and a link that is not in the page


def test_one_look_does_not_see_what_another_saw(window: Page, tmp_path: Path) -> None:
    looked_at(window, written(tmp_path, "<script>nothing()</script>"), 600, "light")
    assert looked_at(window, written(tmp_path, "words"), 600, "light") == Look([], [], [], browser.HEIGHT)


def test_a_person_gets_the_problems_and_pictures_in_pieces(tmp_path: Path) -> None:
    if browser.chromium() is None:
        pytest.skip("no Chromium: set $CHROMIUM or install one")
    page = written(tmp_path, '<p style="font-size:9px">tiny<div style="height:2500px">')
    command = [sys.executable, "-m", "tests.browser", str(page), "--width", "300", "--out", str(tmp_path / "shot.png")]
    result = subprocess.run(
        command, cwd=Path(browser.__file__).parents[1], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1, result.stderr
    assert result.stdout.splitlines()[0] == 'text "tiny" is 9.0 px large, less than 11'
    sizes = [(path.name, path.read_bytes()[16:24].hex()) for path in sorted(tmp_path.glob("*.png"))]
    assert [name for name, _ in sizes] == ["shot-1.png", "shot-2.png"]
    assert sizes[0][1] == f"{300:08x}{2000:08x}"


def test_the_chromium_is_the_one_that_is_named_or_a_known_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    assert browser.chromium() is None
    program = tmp_path / "google-chrome"
    shutil.copy("/bin/true", program)
    assert browser.chromium() == str(program)
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "none"))
    assert browser.chromium() is None
