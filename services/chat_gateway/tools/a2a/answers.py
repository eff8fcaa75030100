"""Responses of remote agents: tasks, messages and stream events, combined and read leniently."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from chat_gateway.model.tools import ToolOutcome, ToolResult
from chat_gateway.tools.results import failed

_ENDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELED", "REJECTED"})
_WAITING: Final = frozenset({"INPUT_REQUIRED", "AUTH_REQUIRED"})
_MAX_ID: Final = 512
"""Characters of an id of a task or context: longer ones do not count."""


class RemoteTask:
    """What is known of one task: its ids, state and what was said. An agent may answer with a message alone.

    The first answer names the task; what is said of other tasks does not count.
    """

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
                case "task" if self._is_ours(one, "id"):
                    self._task(one)
                case "message" if self._is_ours(one, "taskId"):
                    self.state, self._said = "MESSAGE", _joined(one)
                case "statusUpdate" if self._is_ours(one, "taskId"):
                    self._status(one.get("status"))
                case "artifactUpdate" if self._is_ours(one, "taskId"):
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
        artifacts = task.get("artifacts")
        if isinstance(artifacts, list) and artifacts:
            self._artifacts.clear()  # a task has all of them
            for one in artifacts:
                self._artifact(one, append=False)
        self._status(task.get("status"))

    def _is_ours(self, one: Mapping[str, Any], name: str) -> bool:
        """Notes the ids that an answer has; returns whether it is of the task that the first one named."""
        if isinstance(said := one.get(name), str) and said:
            if len(said) > _MAX_ID or (self.id and said != self.id):
                return False
            self.id = said
        context = one.get("contextId")
        if not self.context_id and isinstance(context, str) and len(context) <= _MAX_ID:
            self.context_id = context
        return True

    def _status(self, status: Any) -> None:
        if isinstance(status, Mapping) and isinstance(state := status.get("state"), str):
            self.state = state.upper().replace("-", "_").removeprefix("TASK_STATE_")
            self._said = _joined(status.get("message"))

    def _artifact(self, artifact: Any, *, append: bool) -> None:
        if isinstance(artifact, Mapping):
            name, parts = str(artifact.get("artifactId", "")), list(_parts(artifact))
            if append:
                self._artifacts.setdefault(name, []).extend(parts)
            else:
                self._artifacts[name] = parts


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
