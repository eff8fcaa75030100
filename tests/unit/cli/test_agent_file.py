"""Files that declare agents: what is read of them, and what stays when they are written again."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from parley_cli.declared.agent_file import AgentFile, BadFile, agent_files, as_yaml, exported

TEXT = """\
# Who answers customers.
id: support   # never changes

# what people see
name: "Support"
model:
    provider: local
    # cheap enough
    name: small  # by the pound
instructions: |
    Hello {{company}}.
    - not a list

# below the block
parameters: {company: Acme, n: 1}
metadata_keys:
  - customer
# the end
"""
CONTENT = {
    "id": "support",
    "name": "Support",
    "model": {"provider": "local", "name": "small"},
    "instructions": "Hello {{company}}.\n- not a list\n",
    "parameters": {"company": "Acme", "n": 1},
    "metadata_keys": ["customer"],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "support.yaml"
    path.write_text(TEXT)
    return path


def test_what_the_file_says_already_is_not_written(path: Path) -> None:
    file = AgentFile(path)
    assert file.content() == (CONTENT, [])
    before = path.stat().st_mtime_ns
    same = CONTENT | {"template_id": "assistant", "template_version": "1.1.0"}
    assert not file.update(same), "what the file leaves out means the same"
    assert (path.read_text(), path.stat().st_mtime_ns) == (TEXT, before)


def test_only_what_changes_changes(path: Path) -> None:
    new = CONTENT | {
        "name": "New",
        "model": {"provider": "local", "name": "large", "temperature": 0.5},
        "instructions": "Other.\nText.\n",
        "parameters": {"company": "", "n": 1},
    }
    assert AgentFile(path).update(new)
    expected = TEXT.replace('"Support"', '"New"').replace("name: small  #", "name: large  #")
    expected = expected.replace("Acme", "''")
    expected = expected.replace("by the pound\n", "by the pound\n    temperature: 0.5\n")
    expected = expected.replace("Hello {{company}}.\n    - not a list", "Other.\n    Text.")
    assert path.read_text() == expected
    assert AgentFile(path).content() == (new, [])
    assert not AgentFile(path).update(new)


def test_fields_go_and_come(path: Path) -> None:
    new = {key: value for key, value in CONTENT.items() if key != "metadata_keys"}
    new |= {"labels": {"team": "cx"}, "template_id": "shop"}
    assert AgentFile(path).update(new)
    assert AgentFile(path).content() == (new, [])
    assert path.read_text().startswith(TEXT[: TEXT.index("metadata_keys")])


def test_an_empty_field_that_stands_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    text = "id: a\nname: ''\nlabels: {}\netag: x  # ignored\n"
    path.write_text(text)
    assert not AgentFile(path).update({"id": "a"})
    assert path.read_text() == text


def test_the_id_is_the_files_name_unless_given(tmp_path: Path) -> None:
    path = tmp_path / "sales.yaml"
    path.write_text("name: Sales\nrevision: 3\nuid: x\n")
    file = AgentFile(path)
    assert file.content() == ({"id": "sales", "name": "Sales"}, [])
    assert not file.update({"id": "sales", "name": "Sales"})


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]) | st.just("\n"), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
agents = st.fixed_dictionaries(
    {"id": st.just("a")},
    optional={"name": words.filter(bool), "parameters": st.dictionaries(words, values, min_size=1)},
)


@settings(deadline=None, max_examples=40)
@given(agents, agents)
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, old: Any, new: Any) -> None:
    path = tmp_path_factory.mktemp("file") / "a.yaml"
    path.write_text(as_yaml(old), encoding="utf-8")
    assert AgentFile(path).content() == (old, [])
    AgentFile(path).update(new)
    assert AgentFile(path).content() == (new, [])
    assert not AgentFile(path).update(new)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [1", "a.yaml:1: is not YAML"),
        ("a: 1\na: 2\n", "a.yaml:2: is not YAML: found duplicate key"),
        ("a: 1\n---\nb: 2\n", "a.yaml:2: is not YAML"),
        ("- a\n", "a.yaml: must hold one agent, as fields"),
        ("", "a.yaml: must hold one agent, as fields"),
        (b"\xff", "a.yaml: is not UTF-8"),
    ],
)
def test_a_file_that_is_none_says_where(tmp_path: Path, text: str | bytes, complaint: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadFile) as caught:
        AgentFile(path)
    assert str(caught.value.problem).startswith(f"{tmp_path}/{complaint}")


def test_what_json_has_not_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("parameters:\n  since: 2026-01-01\n  list:\n  - .nan\n  1: x\n")
    content, problems = AgentFile(path).content()
    assert content == {"id": "a", "parameters": {"since": None, "list": [None]}}
    assert [(one.line, one.field) for one in problems] == [
        (2, "parameters.since"),
        (4, "parameters.list[0]"),
        (1, "parameters"),
    ]


def test_lines_of_fields(path: Path) -> None:
    file = AgentFile(path)
    lines = {"model.name": 9, "model.top_p": 6, "parameters.n": 15, "metadata_keys[0]": 17, "labels.x": None, "": None}
    assert {field: file.problem(field, "x").line for field in lines} == lines


def test_an_anchor_may_be_reused(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("labels: &x {a: b}\nparameters: &x {c: d}\nmetadata: *x\n")
    content, problems = AgentFile(file).content()
    assert (content["metadata"], problems) == ({"c": "d"}, [])


def test_a_folder_is_read_whole_but_for_what_is_hidden(tmp_path: Path) -> None:
    for name, text in {
        "b.yaml": "name: B",
        "team/a.yml": "name: A",
        "team/again.yaml": "id: b",
        ".git/x.yaml": "bad: [",
        "notes.txt": "bad: [",
        "bad.yaml": "bad: [",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    files, problems = agent_files(tmp_path)
    assert [file.id for file in files] == ["b", "a"]
    assert [(one.file.name, one.field) for one in problems] == [("bad.yaml", ""), ("again.yaml", "id")]


def test_an_export_has_what_can_be_written_and_is_set() -> None:
    agent = {"id": "a", "name": "", "labels": {"managed-by": "x", "t": "1"}, "parameters": {}, "uid": "u", "etag": "e"}
    assert exported(agent, frozenset({"managed-by"})) == {"id": "a", "labels": {"t": "1"}}
    assert YAML(typ="safe").load(as_yaml({"instructions": "a\nb\n"})) == {"instructions": "a\nb\n"}
    assert as_yaml({"instructions": "a\nb\n"}) == "instructions: |\n  a\n  b\n"
