"""The console and agents with tools: a real MCP server, approvals, reasoning, and tools that the person plays."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.servers.browser import console_page, sign_in
from tests.servers.mcp_server import McpServerUnderTest
from tests.servers.mock_model import Behaviour
from tests.servers.system import System

MAP = {"name": "show_map", "description": "Shows a map.", "parameters": {"type": "object"}}


@pytest.fixture
def system(guarded_system: System) -> System:
    guarded_system.model.reset()
    return guarded_system


@pytest.fixture(scope="module")
def mcp() -> Iterator[McpServerUnderTest]:
    with McpServerUnderTest() as server:
        yield server


def say(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")


def remove(system: System, path: str) -> None:
    with system.client() as client:
        assert client.delete(path).status_code == 204


def test_a_tool_server_is_tested_and_given_to_an_agent_whose_calls_wait_for_a_person(
    browser: Browser, system: System, mcp: McpServerUnderTest
) -> None:
    system.create_agent("teller")
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        sign_in(page, system.operator_key, "#/agents/~tools/~new")
        page.get_by_label("Definition").fill("id: numbers\nmcp:\n  url: https://10.0.0.1/mcp\n")
        page.get_by_role("button", name="Create tool server").click()
        page.get_by_role("button", name="Test connection").click()
        expect(page.locator("section[aria-label=Test] .notice.bad")).to_be_visible()
        page.get_by_label("Definition").fill(f"id: numbers\nmcp: {{url: {mcp.url}}}\n")
        page.get_by_role("button", name="Save").click()
        expect(page.locator("section[aria-label=Test] .notice.bad")).to_have_count(0)
        page.get_by_role("button", name="Test connection").click()
        expect(page.locator("section[aria-label=Test] .notice.good")).to_have_text("It offers 10 tools.")
        page.get_by_text("charge", exact=True).click()
        expect(page.get_by_text("Charges a card.")).to_be_visible()

        page.evaluate("location.hash = '#/agents/teller'")
        page.get_by_label("Add a tool server or an agent").select_option("Tool server numbers")
        text = page.get_by_label("Definition")
        expect(text).to_have_value(re.compile("- mcp: numbers"))
        text.fill(text.input_value().replace("mcp: numbers", "mcp: {tool_server: numbers, approval: [charge]}"))
        page.get_by_role("button", name="Save as new revision").click()
        expect(page.get_by_text("Revision 2 is now in use.")).to_be_visible()

        page.evaluate("location.hash = '#/try/teller'")
        system.model.script(
            Behaviour(
                tool_calls=(("c1", "add", '{"a": 2, "b": 3}'), ("c2", "charge", '{"amount": 30}')), reasoning="Hm."
            ),
            Behaviour(text="Both are done."),
        )
        say(page, "Add, then charge")
        turns = page.locator("article.turn")
        expect(turns.nth(0).locator(".ask")).to_contain_text('"amount": 30')
        expect(turns.nth(0).locator(".reasoning")).to_contain_text("Hm.")
        page.get_by_role("button", name="Approve").click()
        expect(turns.nth(1).locator(".answer")).to_have_text("Both are done.")
        assert [(one.tool, one.arguments) for one in mcp.recorder.calls] == [
            ("add", {"a": 2, "b": 3}),
            ("charge", {"amount": 30}),
        ]
        for turn in (0, 1):  # where it was approved, and where it was made
            charged = turns.nth(turn).locator(".toolcall").filter(has_text="charge")
            expect(charged.locator(".badge")).to_have_text("ok")
        expect(charged).to_contain_text("numbers")

        system.model.script(
            Behaviour(tool_calls=(("c3", "charge", '{"amount": 9}'),)), Behaviour(text="It is not charged.")
        )
        say(page, "Charge more")
        page.get_by_label("Reason (optional)").fill("too much")
        page.get_by_role("button", name="Reject").click()
        expect(turns.nth(3).locator(".answer")).to_have_text("It is not charged.")
        told = system.model.prompts[-1][-1]
        assert (told["tool_call_id"], "too much" in told["content"], len(mcp.recorder.calls)) == ("c3", True, 2)
        turns.nth(3).get_by_role("button", name="Code").click()
        page.get_by_role("button", name="grpcurl").click()
        expect(page.get_by_role("dialog")).to_contain_text('"approvals":[{"tool_call_id":"c3","approve":false')
        page.keyboard.press("Escape")
        remove(system, "/v1/agents/teller")
        page.evaluate("location.hash = '#/agents/~tools/numbers'")
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_role("heading", name="No tool servers yet")).to_be_visible()


def test_an_approved_call_shows_its_result_where_it_was_asked_for(
    browser: Browser, system: System, mcp: McpServerUnderTest
) -> None:
    with system.client() as client:
        server = {"id": "till", "mcp": {"url": mcp.url}}
        assert client.post("/v1/tool_servers", json=server).status_code == 201
    system.create_agent("cashier", tools=[{"mcp": {"tool_server": "till", "approval": ["charge"]}}])
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        sign_in(page, system.operator_key, "#/try/cashier")
        system.model.script(
            Behaviour(tool_calls=(("c1", "charge", '{"amount": 30}'),)),
            Behaviour(text="It is charged.", hold_after_chunks=1),
        )
        say(page, "Charge")
        page.get_by_role("button", name="Approve").click()
        turns = page.locator("article.turn")
        expect(turns.nth(1).locator(".answer.busy")).to_be_visible()
        expect(turns.nth(1).locator(".toolcall .badge")).to_have_text("ok")  # while the turn goes on
        system.model.release()
        expect(turns.nth(1).locator(".answer")).to_have_text("It is charged.")
        for turn in (0, 1):  # where it was asked for, and where it was made
            expect(turns.nth(turn).locator(".toolcall .badge")).to_have_text("ok")
        [session] = re.findall(r"s-\w+", page.locator(".badge", has_text="session").inner_text())
        page.evaluate("id => { location.hash = `#/sessions/${id}`; }", session)
        stored = page.get_by_role("article", name="Turn 1").locator(".toolcall")
        stored.locator("summary").click()
        expect(stored.get_by_role("heading", name="Result")).to_be_visible()
        expect(page.locator(".said-by.tool")).to_have_count(0)
    remove(system, "/v1/agents/cashier")
    remove(system, "/v1/tool_servers/till")


def test_an_agent_elsewhere_is_listed_and_given_to_an_agent(browser: Browser, system: System) -> None:
    with system.client() as client:
        expert = {"id": "expert", "a2a": {"url": "https://agents.example/card.json"}}
        assert client.post("/v1/tool_servers", json=expert).status_code == 201
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        sign_in(page, system.operator_key, "#/agents/~tools")
        expect(page.get_by_role("row", name="expert")).to_contain_text("A2Ahttps://agents.example/card.json")
        page.evaluate("location.hash = '#/agents/hello'")
        page.get_by_label("Add a tool server or an agent").select_option("Tool server expert")
        expect(page.get_by_label("Definition")).to_have_value(re.compile("- a2a: expert"))
    remove(system, "/v1/tool_servers/expert")


def test_a_person_plays_the_tools_of_the_caller_and_sees_the_reasoning(browser: Browser, system: System) -> None:
    system.create_agent("guide", tools=[{"client": MAP}])
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        sign_in(page, system.operator_key, "#/try/guide")
        system.model.script(
            Behaviour(reasoning="A map would help.", tool_calls=(("m1", "show_map", '{"of": "Rome"}'),)),
            Behaviour(reasoning="<b>It was seen.</b>", text="This is Rome."),
        )
        say(page, "Where is Rome?")
        asked = page.locator(".ask")
        asked.get_by_label("show_map").fill("The person looked at it")
        asked.get_by_role("button", name="Send results").click()
        second = page.locator("article.turn").nth(1)
        expect(second.locator(".answer")).to_have_text("This is Rome.")
        expect(second.locator(".said-by.tool")).to_have_text("The person looked at it")
        second.get_by_text("Reasoning", exact=True).click()
        expect(second.get_by_text("<b>It was seen.</b>")).to_be_visible()
        expect(asked).to_have_count(0)
        told = system.model.prompts[-1][-1]
        assert (told["role"], told["tool_call_id"], told["content"]) == ("tool", "m1", "The person looked at it")
        [session] = re.findall(r"s-\w+", page.locator(".badge", has_text="session").inner_text())
        page.evaluate("id => { location.hash = `#/sessions/${id}`; }", session)
        stored = page.get_by_role("article", name="Turn 1")
        stored.get_by_text("Reasoning", exact=True).click()
        expect(stored.get_by_text("A map would help.")).to_be_visible()
        expect(stored.locator(".toolcall")).to_contain_text("show_map")
    remove(system, "/v1/agents/guide")
