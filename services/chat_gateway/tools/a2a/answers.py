"""Responses of remote agents: tasks, messages and stream events, combined and read leniently."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from chat_gateway.model.tools import ToolOutcome, ToolResult
from chat_gateway.tools.results import failed

_ENDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELED", "REJECTED"})
_WAITING: Final = frozenset({"INPUT_REQUIRED", "AUTH_REQUIRED"})


class RemoteTask:
    """What is known of one task: its ids, state and what was said. An agent may answer with a message alone."""

    def __init__(self) -> None:
        self.id = ""
        self.context_id = ""
        self.state = ""
        self._said = ""
        self._artifacts: dict[str, list[str]] = {}

    @property
    def settled(self) -> bool:
        """Whether no more events follow."""
        return self.state in _ENDED or self.state in _WAITING or self.state == "MESSAGE"

    def take(self, answer: Any) -> None:
        """Takes a task, a message, or an event of a stream."""
        if not isinstance(answer, Mapping):
            return
        for name, one in answer.items():
            if not isinstance(one, Mapping):
                continue
            match name:
                case "task":
                    self._task(one)
                case "message":
                    self._ids(one, "taskId")
                    self.state, self._said = "MESSAGE", _joined(one)
                case "statusUpdate":
                    self._ids(one, "taskId")
                    self._status(one.get("status"))
                case "artifactUpdate":
                    self._ids(one, "taskId")
                    self._artifact(one.get("artifact"), append=one.get("append") is True)

    def result(self) -> ToolResult:
        """Returns the result for the model."""
        answer = "\n".join("".join(parts) for parts in self._artifacts.values())
        text = "\n".join(one for one in (answer, self._said) if one)
        match self.state:
            case "COMPLETED" | "MESSAGE":
                return ToolResult(text)
            case "INPUT_REQUIRED":
                return ToolResult(f"{text}\n(The agent waits for an answer: call it again with task_id {self.id!r}.)")
            case "AUTH_REQUIRED":
                return failed(f"the agent asks for an authentication that it can't be given\n{text}".rstrip())
            case "FAILED" | "CANCELED" | "REJECTED":
                return failed(f"the agent's task ended as {self.state.lower()}\n{text}".rstrip())
        return failed("the agent stopped before its task had ended", ToolOutcome.UNKNOWN)

    def _task(self, task: Mapping[str, Any]) -> None:
        self._ids(task, "id")
        artifacts = task.get("artifacts")
        for one in artifacts if isinstance(artifacts, list) else []:
            self._artifact(one, append=False)
        self._status(task.get("status"))

    def _ids(self, one: Mapping[str, Any], name: str) -> None:
        for key, attribute in ((name, "id"), ("contextId", "context_id")):
            if isinstance(said := one.get(key), str) and said:
                setattr(self, attribute, said)

    def _status(self, status: Any) -> None:
        if isinstance(status, Mapping) and isinstance(state := status.get("state"), str):
            self.state = state.removeprefix("TASK_STATE_")
            self._said = _joined(status.get("message"))

    def _artifact(self, artifact: Any, *, append: bool) -> None:
        if isinstance(artifact, Mapping):
            name, parts = str(artifact.get("artifactId", "")), list(_parts(artifact))
            self._artifacts[name] = [*self._artifacts.get(name, []), *parts] if append else parts


def _joined(message: Any) -> str:
    return "\n".join(_parts(message)) if isinstance(message, Mapping) else ""


def _parts(one: Mapping[str, Any]) -> Iterator[str]:
    parts = one.get("parts")
    for part in parts if isinstance(parts, list) else []:
        if not isinstance(part, Mapping):
            continue
        if isinstance(text := part.get("text"), str):
            yield text
        elif "data" in part:
            yield json.dumps(part["data"], ensure_ascii=False)
        elif isinstance(url := part.get("url"), str):
            yield url
        elif isinstance(raw := part.get("raw"), str):
            yield f"[{part.get('mediaType') or 'binary'}, {len(raw) * 3 // 4} bytes: not shown]"
