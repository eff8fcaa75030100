"""Files that `parley` is given, whatever they are and hold: a problem with a name, in bounded time and memory."""

import os
from pathlib import Path

import pytest

from parley_cli.commands.agents import read_object
from parley_cli.declared.agent_file import agent_files
from parley_cli.errors import LocalError
from parley_cli.local.env_file import load_env_file

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
TEXTS = {
    "aliases that multiply": BOMB,
    "an alias of itself": "id: a\nparameters: &x\n  a: *x\n",
    "a merge of itself": "id: a\nparameters: &x\n  <<: *x\n",
    "deep lists": "id: a\nparameters: " + "[" * 20_000,
    "deep maps": "id: a\nparameters: " + "{a: " * 20_000,
    "deep blocks": "id: a\nparameters:\n" + "".join(" " * depth + "a:\n" for depth in range(1, 1500)),
    "a key twice": "id: a\nid: b\n",
    "a control character": "id: a\0b\n",
    "a number of 5,000 digits": "id: a\nparameters: {a: " + "9" * 5000 + "}\n",
    "several documents": "id: a\n---\nid: b\n",
    "nothing": "",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_that_declares_nothing_is_a_problem(tmp_path: Path, text: str) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(text)
    files, [problem] = agent_files(file)
    assert not files
    assert str(problem).startswith(str(file))
    assert len(str(problem)) < 1000
    with pytest.raises(LocalError, match=r"agent\.yaml"):
        read_object(file)


def test_a_kind_that_is_no_text_and_half_a_character_are_problems(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("kind: [x]\n")
    _, [problem] = agent_files(file)
    assert problem.field == "kind"
    file.write_text('id: a\ninstructions: "\\ud800"\n')
    [declared], _ = agent_files(file)
    _, [problem] = declared.content()
    assert problem.field == "instructions"
    with pytest.raises(LocalError, match=r"agent\.yaml"):
        read_object(file)


def test_an_openapi_document_that_multiplies_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "api.yaml").write_text(BOMB)
    file = tmp_path / "server.yml"
    for document in ("api.yaml", "/dev/zero", ".", "none"):
        file.write_text(f"id: a\nhttp: {{openapi_file: {document}}}\n")
        [declared], _ = agent_files(file)
        _, [problem] = declared.content()
        assert problem.field == "http.openapi_file"


def test_aliases_within_bounds_and_marks_of_windows_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_bytes(b"\xef\xbb\xbfid: a\r\nlabels: &x {a: b}\r\nparameters: *x\r\n")
    [declared], problems = agent_files(file)
    assert not problems
    assert declared.content()[0] == {"id": "a", "labels": {"a": "b"}, "parameters": {"a": "b"}} == read_object(file)


@pytest.mark.parametrize("path", ["/dev/zero", "/", "loop", "latin"])
def test_what_is_no_text_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "latin").write_bytes(b"A=\xff\n")
    for load in (read_object, load_env_file):
        with pytest.raises(LocalError, match=path):
            load(tmp_path / path)


def test_an_env_file_of_windows_and_one_through_a_pipe_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "env"
    for name in ("PARLEY_TEST_A", "PARLEY_TEST_B"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    file.write_bytes(b'\xef\xbb\xbfPARLEY_TEST_A="1"\r\nPARLEY_TEST_B=2\r\n')
    load_env_file(file)
    assert (os.environ["PARLEY_TEST_A"], os.environ["PARLEY_TEST_B"]) == ("1", "2")
    load_env_file(Path("/dev/null"))
    file.write_bytes(b"PARLEY_TEST_C=a\0b\n")
    with pytest.raises(LocalError, match="NUL"):
        load_env_file(file)
