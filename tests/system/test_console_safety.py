"""The console with texts that mean harm, with axe-core, on a phone and by keyboard."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.servers.browser import DESKTOP, PHONE, axe, console_page, sign_in, visit
from tests.servers.mock_model import Behaviour
from tests.servers.system import System

HOSTILE = (
    "<script>hacked=1</script><img src=x onerror=hacked=1> \x1b[31mred\x1b[0m \u202eevil\u202c "
    "[click](javascript:hacked=1) ![x](https://evil.example/x.png) </textarea><svg onload=hacked=1> '\"`${hacked=1}"
)
USER = "<script>hacked=1</script>"
SESSION = "hostile-1"
AGENT = "hostile"
PAGES = (
    "#/try/hostile",
    "#/agents",
    "#/agents/hostile",
    "#/agents/hostile/revisions",
    "#/agents/hostile/later",
    "#/agents/~new",
    "#/agents/~tools",
    "#/agents/~tools/hostile",
    "#/sessions",
    f"#/sessions/{SESSION}",
    "#/operate",
    "#/operate/instances",
    "#/operate/keys",
    "#/operate/projects",
    "#/operate/audit",
)
DIALOGS = {
    "#/operate/keys": "New API key",
    "#/sessions": "Export or erase a user",
    f"#/sessions/{SESSION}": "Fork here",
    "#/agents/hostile": "Delete",
}


@pytest.fixture(scope="module")
def hostile(guarded_system: System) -> Iterator[System]:
    """An installation whose every text means harm."""
    guarded_system.model.reset()
    with guarded_system.client() as client:
        visible = HOSTILE.replace("\x1b", "")
        agent = {"name": visible[:180], "instructions": HOSTILE, "labels": {"x": visible[:200]}}
        tool = {"name": "show", "description": visible, "parameters": {"type": "object"}}
        guarded_system.create_agent(AGENT, tools=[{"client": tool}], **agent)
        client.patch(f"/v1/agents/{AGENT}", json={"instructions": HOSTILE * 2}, params={"comment": visible})
        server = {"id": "hostile", "name": visible[:180], "mcp": {"url": "https://mcp.example/mcp"}}
        assert client.post("/v1/tool_servers", json=server).status_code == 201
        key = client.post("/v1/api_keys", json={"scopes": ["chat"], "display_name": visible[:180]}).json()
        guarded_system.model.script(Behaviour(text=HOSTILE), Behaviour(text="x" * 200_000))
        for text in (HOSTILE, "y" * 700_000):
            body = {"session_id": SESSION, "user_id": USER, "metadata": {"note": visible}}
            assert guarded_system.chat(AGENT, text, **body).status_code == 200
        yield guarded_system
        for path in (f"/v1/agents/{AGENT}", "/v1/tool_servers/hostile", f"/v1/api_keys/{key['id']}"):
            assert client.delete(path).status_code == 204


def open_pages(page: Page, system: System, paths: tuple[str, ...] = PAGES) -> Iterator[str]:
    sign_in(page, system.operator_key)
    for path in paths:
        page.evaluate("path => { location.hash = path; }", path)
        page.locator("main h1").wait_for()
        page.locator("main :is(.card, .empty, .composer)").first.wait_for()
        wait_until_at_rest(page)  # the page before has those, too
        yield path


def wait_until_at_rest(page: Page) -> None:
    """Wait until a page has stopped changing."""
    before, now = "", page.locator("main").inner_html()
    while now != before:
        page.wait_for_timeout(100)
        before, now = now, page.locator("main").inner_html()


def test_texts_that_mean_harm_are_only_shown(browser: Browser, hostile: System) -> None:
    with console_page(browser, hostile.http_url) as watched:
        page = watched.page
        for path in open_pages(page, hostile):
            found = page.evaluate(
                """() => [typeof hacked, document.querySelectorAll('main :is(script, iframe, svg, object)').length,
                [...document.querySelectorAll('main img')].filter(one => !/^(data|blob):/.test(one.src)).length,
                [...document.querySelectorAll('a')].filter(one => !/^https?:/.test(one.protocol)).length,
                /[\\u202e\\u001b]/.test(document.querySelector('main').innerText)]"""
            )
            assert found == ["undefined", 0, 0, 0, False], path
        page.evaluate("path => { location.hash = path; }", f"#/sessions/{SESSION}")
        first = page.get_by_role("article", name="Turn 1")
        expect(first).to_contain_text("<script>hacked=1</script>")
        expect(first).to_contain_text("[U+202E]evil")
        expect(page.get_by_role("button", name="Show all 700,000 characters")).to_be_visible()
        page.evaluate("path => { location.hash = path; }", f"#/try/{AGENT}")
        call = ("c1", "show", json.dumps({HOSTILE: HOSTILE}))
        hostile.model.script(
            Behaviour(text=HOSTILE * 20, reasoning=HOSTILE, tool_calls=(call,)), Behaviour(text=HOSTILE)
        )
        page.get_by_label("Message").fill(HOSTILE)
        page.get_by_label("Message").press("Enter")
        page.get_by_label("show").fill(HOSTILE)
        page.get_by_role("button", name="Send results").click()
        expect(page.locator(".turnfacts")).to_have_count(2)
        for name in ("Prompt", "Code"):
            page.locator(".turnfacts").last.get_by_role("button", name=name).click()
            expect(page.get_by_role("dialog")).to_contain_text("hacked=1")
            found = page.evaluate(
                """() => [typeof hacked, document.querySelectorAll(':is(main, dialog) :is(script, iframe, svg)').length,
                /[\\u202e\\u001b]/.test(document.body.textContent)]"""
            )
            assert found == ["undefined", 0, False]
            page.keyboard.press("Escape")


def test_axe_finds_nothing_and_nothing_is_wider_than_a_phone(browser: Browser, hostile: System) -> None:
    """Every page, light on a desktop and dark on a phone."""
    program = axe()
    found: list[str] = []
    with console_page(browser, hostile.http_url) as watched:
        page = watched.page
        visit(page, "/console")
        page.get_by_label("API key").wait_for()
        page.evaluate(program)
        found += violations(page, "sign in")
        for path in open_pages(page, hostile):
            if path == PAGES[0]:  # signing in has loaded the page anew
                page.evaluate(program)
            found += violations(page, path)
            page.set_viewport_size(PHONE)
            page.emulate_media(color_scheme="dark")
            found += violations(page, f"{path} on a phone")
            assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), path
            page.set_viewport_size(DESKTOP)
            page.emulate_media(color_scheme="light")
        for path, button in DIALOGS.items():
            page.evaluate("path => { location.hash = path; }", path)
            page.get_by_role("button", name=button).first.click()
            page.get_by_role("dialog").wait_for()
            found += violations(page, f"{button} of {path}")
            page.keyboard.press("Escape")
            expect(page.get_by_role("dialog")).to_have_count(0)
        call = ("c1", "show", "{}")
        hostile.model.script(Behaviour(text=HOSTILE, reasoning=HOSTILE, tool_calls=(call,)))
        page.evaluate("path => { location.hash = path; }", f"#/try/{AGENT}")
        page.get_by_label("Message").fill("Show it")
        page.get_by_label("Message").press("Enter")
        page.get_by_label("show").wait_for()
        found += violations(page, "a turn that waits for results")
        for name in ("Prompt", "Code"):
            page.locator(".turnfacts").get_by_role("button", name=name).click()
            found += violations(page, name)
            page.keyboard.press("Escape")
    assert found == []


def violations(page: Page, where: str) -> list[str]:
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    return [f"{where} {rule['id']}: {node['target']}" for rule in found["violations"] for node in rule["nodes"]]


def test_it_is_used_by_keyboard_alone(browser: Browser, hostile: System) -> None:
    with console_page(browser, hostile.http_url) as watched:
        page = watched.page
        visit(page, "/console")
        page.get_by_label("API key").wait_for()
        page.keyboard.press("Tab")
        page.keyboard.type(hostile.operator_key)
        page.keyboard.press("Enter")
        page.get_by_label("Message").wait_for()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        for _ in range(8):
            if page.evaluate("document.activeElement.ariaLabel") == "Message":
                break
            page.keyboard.press("Tab")
        page.keyboard.type("By keyboard")
        page.keyboard.press("Enter")
        expect(page.locator(".said-by")).to_have_text("By keyboard")
        expect(page.locator(".turnfacts")).to_be_visible()
        page.get_by_role("button", name="Code").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).not_to_be_visible()
