"""The console for who writes an agent: form and YAML, templates' parameters, revisions."""

import re

import pytest
import yaml
from playwright.sync_api import Browser, expect

from tests.servers.browser import console_page, sign_in, visit
from tests.servers.mock_model import MODEL
from tests.servers.system import PROVIDER, System


@pytest.fixture
def system(guarded_system: System) -> System:
    guarded_system.model.reset()
    return guarded_system


def test_an_agent_is_written_as_form_and_yaml_compared_and_rolled_back(browser: Browser, system: System) -> None:
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        sign_in(page, system.operator_key, "#/agents/~new")
        create = page.get_by_role("button", name="Create agent")
        page.get_by_label("Id", exact=True).fill("Not an id")
        page.get_by_label("Provider").select_option(PROVIDER)
        page.get_by_label("Model", exact=True).fill(MODEL)
        expect(page.locator(".field", has_text="Id").locator(".wrong").first).to_be_visible()
        expect(create).to_be_disabled()
        page.get_by_label("Id", exact=True).fill("helper")
        text = page.get_by_label("Definition")
        written = text.input_value().replace("You are a friendly assistant.", "You answer for {{company}}.")
        text.fill(written + 'parameters: {"company": "Acme"}\n')
        expect(page.get_by_label("company")).to_have_value("Acme")
        page.get_by_label("Temperature").fill("9")
        expect(page.get_by_text("must be at least 0 and at most 2")).to_have_count(2)
        page.get_by_label("Temperature").fill("1.5")
        expect(page.get_by_text("valid", exact=True)).to_be_visible()
        create.click()
        page.get_by_role("heading", name="helper").wait_for()
        page.get_by_label("Instructions").fill("Be brief.")
        page.get_by_label("Comment").fill("shorter")
        page.get_by_role("button", name="Save as new revision").click()
        expect(page.get_by_text("Revision 2 is now in use.")).to_be_visible()
        page.get_by_role("link", name="Revisions").click()
        expect(page.get_by_role("region", name="Revision 1 and 2")).to_contain_text("You answer for {{company}}.")
        page.get_by_role("button", name="Roll back").click()
        page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
        expect(page.get_by_text("Revision 3 is now in use.")).to_be_visible()
        page.get_by_role("link", name="Releases and usage").click()
        expect(page.get_by_role("main")).to_contain_text("Applications can name a revision as helper@3")
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        page.get_by_label("Show deleted").check()
        page.get_by_label("Filter").fill("no agent is called so")
        expect(page.get_by_role("heading", name="No matches")).to_be_visible()
        page.get_by_label("Filter").fill('template_id = "none-has-it"')
        expect(page.get_by_role("heading", name="No matches")).to_be_visible()
        page.get_by_label("Filter").fill('template_id = "assistant"')
        expect(page.get_by_role("row", name=re.compile("helper"))).to_be_visible()
        page.get_by_label("Filter").fill("helper")
        page.get_by_role("button", name="Undelete").click()
        page.get_by_role("dialog").get_by_role("button", name="Undelete").click()
        expect(page.get_by_role("link", name="helper", exact=True)).to_be_visible()
    with system.client() as client:
        stored = client.get("/v1/agents/helper").json()
        assert (stored["revision"], stored["instructions"]) == (3, "You answer for {{company}}.")
        assert stored["parameters"] == {"company": "Acme"}
        assert client.delete("/v1/agents/helper").status_code == 204


def test_a_template_s_parameters_and_a_provider_s_models_are_chosen_from(browser: Browser, system: System) -> None:
    answer = {"object": "list", "data": [{"name": PROVIDER, "models": ["small", MODEL]}], "next_page_token": ""}
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        page.route("**/v1/providers*", lambda route: route.fulfill(json=answer))
        sign_in(page, system.operator_key, "#/agents/~new")
        page.get_by_label("Id", exact=True).fill("routed")
        page.get_by_label("Model", exact=True).select_option(MODEL)
        page.get_by_label("Template").select_option("router")
        page.get_by_label("routes * (JSON)").fill('[{"agent": "hello"')
        expect(page.get_by_text("Not valid JSON.")).to_be_visible()
        page.get_by_label("routes * (JSON)").fill('[{"agent": "hello"}]')
        page.get_by_label("default").fill("hello")
        page.get_by_label("ask_model").check()
        page.get_by_role("button", name="Create agent").click()
        page.get_by_role("heading", name="routed").wait_for()
    with system.client() as client:
        stored = client.get("/v1/agents/routed").json()
        assert client.delete("/v1/agents/routed").status_code == 204
    assert (stored["template_id"], stored["model"]["name"]) == ("router", MODEL)
    assert stored["parameters"] == {"routes": [{"agent": "hello"}], "default": "hello", "ask_model": True}


def test_every_kind_of_parameter_has_its_field(browser: Browser, system: System) -> None:
    schema = {
        "properties": {
            "tone": {"enum": ["short", "long"], "description": "How it speaks."},
            "level": {"type": "integer", "minimum": 1, "maximum": 9},
            "share": {"anyOf": [{"type": "number"}, {"type": "null"}]},
            "words": {"type": "array", "items": {"$ref": "#/$defs/word"}},
            "on": {"type": ["boolean", "null"]},
            "text": {"type": "string", "maxLength": 4000, "default": "as it was"},
            "other": {"type": "object"},
        },
        "required": ["tone"],
        "additionalProperties": False,
        "$defs": {"word": {"type": "string"}},
    }
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        visit(page, "/console")
        page.get_by_label("API key").wait_for()
        page.evaluate(
            """async schema => {
            const { html, render } = await import('/console/lib.js');
            const { SchemaForm } = await import('/console/schema_form.js');
            const value = window.given = {};
            const show = () => render(html`<${SchemaForm} ...${{ schema, value, path: 'p', wrong: () => '' }}
                set=${(path, to) => { value[path.slice(2)] = to; show(); }} />`, document.getElementById('app'));
            show(); }""",
            schema,
        )
        page.get_by_label("tone *").select_option("long")
        expect(page.get_by_text("How it speaks.")).to_be_visible()
        page.get_by_label("level").fill("3")
        assert page.get_by_label("level").get_attribute("max") == "9"
        page.get_by_label("share").fill("0.5")
        page.get_by_label("words").fill("a\nb")
        page.get_by_label("on", exact=True).check()
        assert page.get_by_label("text").get_attribute("placeholder") == "as it was"
        page.get_by_label("text").fill("other")
        page.get_by_label("other (JSON)").fill('{"deep": [1]}')
        expect(page.get_by_role("button", name="Add")).to_have_count(0)
        given = page.evaluate("window.given")
    words = {"tone": "long", "level": 3, "share": 0.5, "words": ["a", "b"], "on": True}
    assert given == words | {"text": "other", "other": {"deep": [1]}}


def test_yaml_is_read_and_written_as_others_do(browser: Browser, system: System) -> None:
    values = {
        "text": "a: b # c",
        "lines": "one\n\n two\nthree\n",
        "open": "no\nend",
        "yes": "yes",
        "number": "1.0",
        "odd": "\x1b[31m\u2028é",
        "list": [1, -0.5, None, True, [], {}, [["x"]], {"a": {"b": ["c", {"d": "e"}]}}],
        'quoted "key"': " space ",
        "dash": "- x",
    }
    texts = ["a: 1\nb:\n- x\n- y: 'it''s'\n  z: >-\n    one\n    two\n", "# c\na: |+\n  x\n\nb: [1, 2]  # d\nc: ~\n"]
    texts.append("- mcp: {tool_server: a-b, allow: [x y, 'it''s', \"q, z\"],  # e\n    url: https://a.b/c}\n")
    texts.append("- {n: -1.5, of: [ true , ~, 1.0.0], 'k': {}, \"j\":[1]}\n")
    refused = [
        "a: &x 1",
        "a: b: c",
        "a:\n\tb: 1",
        "a: 1\na: 2",
        "---\na: 1\n---\nb: 2",
        "a: [1, &x y]",
        "a: {b: {c}",
        "a: [b: ]]",
        "a: !!int 3",
    ]
    with console_page(browser, system.http_url) as watched:
        visit(watched.page, "/console")
        written, back, read, wrong = watched.page.evaluate(
            """async ([values, texts, refused]) => { const { dump, load } = await import('/console/yaml.js');
            const fails = text => { try { load(text); return 'taken'; } catch (error) { return error.message; } };
            return [dump(values), load(dump(values)), texts.map(load), refused.map(fails)]; }""",
            [values, texts, refused],
        )
    assert back == values
    assert yaml.safe_load(written) == values
    assert read == [yaml.safe_load(text) for text in texts]
    assert [text for text in wrong if not text.startswith("Line ")] == []
