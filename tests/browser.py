"""A web page as a person sees it: what cannot be read or reached in a real Chromium (tests/looks/ says what).

python -m tests.browser report.html --width 390 --scheme dark --out shot.png
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
from playwright.sync_api import Page, sync_playwright

Scheme = Literal["light", "dark"]
Media = Literal["screen", "print"]

HEIGHT = 900  # px of a window
PIECE = 2000  # px of a picture's height: taller ones are hard to look at

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Nothing of Chromium's own goes out, and nothing of an earlier start is read.
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# One script to run in the page: it returns a list of sentences.
LOOKS = "".join((Path(__file__).parent / f"looks/{part}.js").read_text("utf-8") for part in ("common", "text", "page"))
SCRIPT = f"""async (print) => {{
    {LOOKS}
    await document.fonts.ready;
    if (print) window.dispatchEvent(new Event("beforeprint"));
    const looks = [readable, apart, scrolling, images, structure, references, selfContained, unfolded];
    const written = texts();
    for (const look of looks) look(written);
    return [...new Set(problems)];
}}"""


@dataclass(frozen=True)
class Look:
    """What a look at a page found; `problems` are sentences, and also tell of `requests` and `console`."""

    problems: list[str]
    requests: list[str]  # URLs that the page asked for beside itself and data: URLs
    console: list[str]  # errors and warnings
    height: int  # px


def chromium() -> str | None:
    """The Chromium to use: $CHROMIUM, or the first known name in PATH."""
    given = os.environ.get("CHROMIUM")
    return next(filter(None, map(shutil.which, [given] if given else PROGRAMS)), None)


@contextmanager
def opened(program: str) -> Iterator[Page]:
    """A window of a headless Chromium with an empty profile and no network; closed at the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield browser.new_context(offline=True).new_page()
        finally:
            browser.close()


def looked_at(
    window: Page, file: Path, width: int, scheme: Scheme, media: Media = "screen", picture: Path | None = None
) -> Look:
    """One look at the page `file` in `window`, made `width` px wide; `picture` is a PNG to write (if tall: several)."""
    requests: list[str] = []
    console: list[str] = []
    address = file.resolve().as_uri()
    window.set_viewport_size({"width": width, "height": HEIGHT})
    window.emulate_media(media=media, color_scheme=scheme, reduced_motion="reduce")
    with _heard(window, requests, console):
        window.goto(address)
        problems: list[str] = window.evaluate(SCRIPT, media == "print")
    height: int = window.evaluate("document.documentElement.scrollHeight")
    if picture:
        _photograph(window, picture, width, height)
    requests = [url for url in requests if url != address and not url.startswith("data:")]
    problems += [f"the page asks for {url}" for url in requests] + [f"the console says: {text}" for text in console]
    return Look(problems, requests, console, height)


@contextmanager
def _heard(window: Page, requests: list[str], console: list[str]) -> Iterator[None]:
    """Appends what the page asks for, and its errors and warnings."""
    listeners: dict[str, Callable[[Any], None]] = {
        "request": lambda request: requests.append(request.url),
        "console": lambda line: console.append(line.text) if line.type in {"error", "warning"} else None,
        "pageerror": lambda error: console.append(str(error)),
    }
    for event, listener in listeners.items():
        window.on(event, listener)  # type: ignore[call-overload]
    try:
        yield
    finally:
        for event, listener in listeners.items():
            window.remove_listener(event, listener)


def _photograph(window: Page, picture: Path, width: int, height: int) -> None:
    """The whole page as `picture`; a tall one as NAME-1.png, NAME-2.png and so on."""
    tops = range(0, height, PIECE)
    for k, top in enumerate(tops, 1):
        path = picture if len(tops) == 1 else picture.with_stem(f"{picture.stem}-{k}")
        window.screenshot(
            path=path, full_page=True, clip={"x": 0, "y": top, "width": width, "height": min(PIECE, height - top)}
        )


@click.command()
@click.argument("page", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--width", default=1280, show_default=True, help="Of the window, px.")
@click.option("--scheme", type=click.Choice(["light", "dark"]), default="light", show_default=True)
@click.option("--media", type=click.Choice(["screen", "print"]), default="screen", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write a picture of the page: a PNG.")
@click.pass_context
def command(context: click.Context, page: Path, width: int, scheme: Scheme, media: Media, out: Path | None) -> None:
    """Print what cannot be read or reached on PAGE; exit code 1 if there is anything."""
    program = chromium()
    if program is None:
        raise click.ClickException("no Chromium: set $CHROMIUM or install one")
    with opened(program) as window:
        look = looked_at(window, page, width, scheme, media, out)
    for problem in look.problems:
        click.echo(problem)
    click.echo(f"{len(look.problems)} problems, {look.height} px high")
    context.exit(bool(look.problems))


if __name__ == "__main__":
    command()
