"""How soon the console appears in a browser that has none of its files yet."""

import shutil
from dataclasses import dataclass

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = ("chromium", "chromium-browser")
_WAIT_MS = 30_000
_PAINTED = """wait => new Promise((found, fail) => {
    setTimeout(() => fail(new Error('nothing was painted')), wait);
    new PerformanceObserver(list => {
        for (const paint of list.getEntriesByName('first-contentful-paint')) found(paint.startTime);
    }).observe({type: 'paint', buffered: true});
})"""


@dataclass(frozen=True, slots=True)
class Appearance:
    """When a page appeared, in ms since it was asked for."""

    first_paint_ms: float
    usable_ms: float
    """An agent can be written to."""


def first_paint_ms(page: Page) -> float:
    """Waits until a page has painted text or a picture for the first time, and returns when that was."""
    return float(page.evaluate(_PAINTED, _WAIT_MS))


def appearance(browser: Browser, http_url: str) -> Appearance:
    """Opens the console of an installation without authentication in a context of its own, with nothing cached."""
    with browser.new_context(base_url=http_url) as context:
        context.set_default_timeout(_WAIT_MS)
        page = context.new_page()
        page.goto("/console#/try")
        painted = first_paint_ms(page)
        page.locator(".composer").wait_for()
        return Appearance(painted, float(page.evaluate("performance.now()")))


def appearances(http_url: str, repeats: int) -> list[Appearance]:
    """Returns an appearance for each repeat; none where the machine has no chromium."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        return []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            return [appearance(browser, http_url) for _ in range(repeats)]
        finally:
            browser.close()
