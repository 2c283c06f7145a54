"""The page as a browser shows it: nothing is loaded, nothing runs, everything can be read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from devhost_server.messages.pages import render
from tests.messages.test_pages import REFUSED

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = replace(
    REFUSED,
    title="<script>document.title='owned'</script>",
    detail="<img src=http://attacker.invalid/ onerror=\"document.title='owned'\">",
    owner="</style></title><b onclick=1>",
    target="/" + "unbroken" * 30,
    tried=("x" * 300,),
)

# Contrast as WCAG 2.2 defines it, of every element that has text of its own on the first opaque ground behind it.
CONTRASTS = """() => {
  const channels = css => css.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b]
    .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    throw new Error("no ground");
  };
  return [...document.body.querySelectorAll("*")]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    .map(e => {
      const [a, b] = [luminance(channels(getComputedStyle(e).color)), luminance(ground(e))];
      return [e.textContent.slice(0, 30), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[360, 1100])
def page(browser: Browser, scheme: Any, request: pytest.FixtureRequest) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": request.param, "height": 800}, color_scheme=scheme)
    yield opened
    opened.close()


def show(page: Page, facts: Any) -> list[str]:
    """Serve the page as the gateway would and return what else the browser asked for."""
    content_type, body = render(facts, b"text/html")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.route(
        "http://api.localhost/**",
        lambda route: route.fulfill(status=502, headers={"Content-Type": content_type.decode()}, body=body),
    )
    page.goto("http://api.localhost/v1")
    return [address for address in asked if address not in {"http://api.localhost/v1", "data:,"}]


def test_it_asks_for_nothing_and_says_what_failed(page: Page) -> None:
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    assert show(page, REFUSED) == []
    assert complaints == []
    assert page.title() == "502 Bad Gateway: The target refuses connections"
    assert page.get_by_role("heading", level=1).inner_text() == "The target refuses connections"
    assert page.get_by_role("list", name="How far the request came").get_by_role("listitem").count() == 3
    assert (
        "127.0.0.1:8000: connection refused after 1 ms"
        in page.get_by_role("region", name="What was tried").inner_text()
    )


def test_hostile_facts_stay_text(page: Page) -> None:
    assert show(page, HOSTILE) == []
    assert page.title().endswith(HOSTILE.title)
    assert page.get_by_role("heading", level=1).inner_text() == HOSTILE.title
    assert page.locator("script, img, [onclick]").count() == 0


@pytest.mark.parametrize("facts", [REFUSED, HOSTILE], ids=["plain", "hostile"])
def test_nothing_sticks_out_sideways(page: Page, facts: Any) -> None:
    show(page, facts)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_every_text_has_enough_contrast(page: Page) -> None:
    show(page, REFUSED)
    measured = page.evaluate(CONTRASTS)
    assert len(measured) > 20
    assert [text for text, contrast in measured if contrast < 4.5] == []


def test_the_scheme_of_the_reader_is_followed(page: Page, scheme: str) -> None:
    show(page, REFUSED)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(ground) > 384) is (scheme == "light")


def test_a_click_selects_the_whole_request_id(page: Page) -> None:
    show(page, REFUSED)
    page.locator(".id").click()
    assert page.evaluate("getSelection().toString().trim()") == REFUSED.request_id
