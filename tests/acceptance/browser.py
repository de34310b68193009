"""A headless Chromium that notes everything that goes wrong in its pages, and what is wrong with a page for who cannot see or point."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("NEXUS_REQUIRE_CHROMIUM") != "1", reason="chromium is not installed (apt-get install chromium)"
)

# What is wrong with the page as it is shown now, a sentence each. Contrast by WCAG 2.2, relative luminance.
_AUDIT = """() => {
  const wrong = [], seen = (e) => e.checkVisibility({visibilityProperty: true, opacityProperty: true});
  const name = (e) => `${e.tagName.toLowerCase()} ${(e.id || e.className || e.textContent).toString().trim().slice(0, 40)}`;
  if (document.documentElement.scrollWidth > innerWidth) wrong.push(`it is ${document.documentElement.scrollWidth} px wide`);
  if (document.querySelectorAll('h1').length !== 1) wrong.push('it has not one h1');
  if (document.documentElement.lang !== 'en') wrong.push('it names no language');
  let level = 1;
  for (const h of document.querySelectorAll('h1,h2,h3,h4')) {
    if (+h.tagName[1] > level + 1) wrong.push(`${name(h)} skips a level`);
    level = +h.tagName[1];
  }
  for (const e of document.querySelectorAll('input:not([type=hidden]),select,textarea'))
    if (seen(e) && !e.labels.length && !e.ariaLabel) wrong.push(`${name(e)} has no label`);
  for (const e of document.querySelectorAll('a[href],button'))
    if (seen(e) && !(e.innerText.trim() || e.textContent.trim() || e.ariaLabel)) wrong.push(`${name(e)} has no name`);
  for (const e of document.querySelectorAll('svg'))
    if (e.ariaHidden !== 'true' && !e.querySelector('title')) wrong.push(`${name(e)} says nothing`);
  for (const e of document.querySelectorAll('th')) if (!e.scope) wrong.push(`${name(e)} has no scope`);
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  for (const id of new Set(ids)) if (ids.filter((one) => one === id).length > 1) wrong.push(`two have the id ${id}`);
  for (const e of document.querySelectorAll('[aria-labelledby],[aria-describedby]'))
    for (const id of `${e.getAttribute('aria-labelledby') ?? ''} ${e.getAttribute('aria-describedby') ?? ''}`.trim().split(/\\s+/))
      if (!document.getElementById(id)) wrong.push(`${name(e)} refers to ${id}, which is not there`);
  const colour = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = colour(getComputedStyle(e).backgroundColor);
      if ((c[3] ?? 1) > 0) return c;
    }
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const checked = new Set();
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (checked.has(e) || !walker.currentNode.data.trim() || !seen(e) || e.closest('.unseen,svg,option,script,style')) continue;
    checked.add(e);
    const style = getComputedStyle(e), [a, b] = [light(colour(style.color)), light(ground(e))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
    if ((a + .05) / (b + .05) < (large ? 3 : 4.5)) wrong.push(`${name(e)} has contrast ${((a + .05) / (b + .05)).toFixed(2)}`);
  }
  return [...new Set(wrong)];
}"""


@dataclass
class Watched:
    """A page and what went wrong in it: errors of scripts and policies, requests that failed or were refused."""

    page: Page
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._on_message)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("requestfailed", self._on_failure)
        self.page.on("response", self._on_response)

    def _on_message(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.problems.append(f"{message.type}: {message.text}")

    def _on_failure(self, request: Request) -> None:
        # What was still being fetched when the next page was asked for; a refused connection has another name.
        if request.failure == "net::ERR_ABORTED":
            return
        self.problems.append(f"failed: {request.url} {request.failure}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")

    def audit(self) -> list[str]:
        """Return what is wrong with the page as it is shown now, one sentence each."""
        found: list[str] = self.page.evaluate(_AUDIT)
        return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser of this machine; nothing is downloaded."""
    assert CHROMIUM is not None, "chromium is required and not installed"
    # Its sandbox refuses to run as root, which continuous integration is.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watched(
    browser: Browser, base_url: str, width: int = 1280, scheme: Literal["dark", "light"] = "light", **options: Any
) -> Iterator[Watched]:
    """Open a page in a browser without a past."""
    context = browser.new_context(base_url=base_url, viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
    try:
        yield Watched(context.new_page())
    finally:
        context.close()
