"""A page in a real Chromium: what a reader would stumble over, in sentences."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page, Request, sync_playwright

Scheme = Literal["light", "dark"]
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]

LOOK = """() => {
  const problems = [], page = document.documentElement;
  const all = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility());
  const named = (e) => `<${e.tagName.toLowerCase()}> "${(e.alt ?? e.textContent).trim().slice(0, 40)}"`;
  const rgba = (text) => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const luminance = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, k) => {
    const v = c[k] / 255;
    return sum + weight * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] > 0) return colour;
    }
    return [255, 255, 255, 1];
  };
  if (page.scrollWidth > page.clientWidth)
    problems.push(`the page scrolls sideways: ${page.scrollWidth} px in ${page.clientWidth}`);
  for (const e of all("body *")) {
    const css = getComputedStyle(e), scrolls = /auto|scroll/.test(css.overflowX);
    if (e.scrollWidth > e.clientWidth + 1 && css.overflowX !== "visible" && !(scrolls && e.tabIndex >= 0))
      problems.push(`${named(e)} hides what does not fit`);
    if (![...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim())) continue;
    if (parseFloat(css.fontSize) < 11) problems.push(`${named(e)} is smaller than 11 px`);
    const [dark, light] = [rgba(css.color), ground(e)].map(luminance).sort((a, b) => a - b);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < 4.5) problems.push(`${named(e)} has a contrast of ${contrast.toFixed(2)}, less than 4.5`);
  }
  for (const e of document.querySelectorAll("img")) {
    if (!e.naturalWidth) problems.push(`${named(e)} shows nothing`);
    if (!e.alt) problems.push(`${named(e)} has no alt`);
  }
  if (!document.title || !page.lang) problems.push("the page has no title or no language");
  return problems;
}"""


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


def problems(window: Page, file: Path, width: int, scheme: Scheme) -> list[str]:
    """Open the page `file`, `width` px wide, and say what is wrong with it."""
    address, found = file.resolve().as_uri(), list[str]()

    def hear(text: str) -> None:
        found.append(f"the console says: {text}")

    def ask(request: Request) -> None:
        if not request.url.startswith(("data:", address)):
            found.append(f"the page asks for {request.url}")

    window.on("console", lambda line: hear(line.text) if line.type in {"error", "warning"} else None)
    window.on("pageerror", lambda error: hear(str(error)))
    window.on("request", ask)
    window.set_viewport_size({"width": width, "height": 900})
    window.emulate_media(color_scheme=scheme)
    window.goto(address)
    return [*window.evaluate(LOOK), *found]
