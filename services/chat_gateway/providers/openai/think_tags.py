"""Reasoning in `<think>…</think>` at the start of the content."""

_OPEN, _CLOSE = "<think>", "</think>"
_MAX_BLANK = 1024
"""Blanks in front of a tag; behind more of them, none is looked for."""


class ThinkTags:
    """Parts a text that comes in pieces into reasoning and answer; what may still become a tag waits."""

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        self._held = ""
        self._state = "start"

    def feed(self, text: str) -> tuple[str, str]:
        """Returns what a piece adds to the reasoning, and to the answer."""
        if self._state == "answer" and not self._held:
            return "", text
        self._held += text
        if self._state == "start":
            begin = self._held.lstrip()
            if begin.startswith(_OPEN):
                self._state, self._held = "thinking", begin.removeprefix(_OPEN).removeprefix("\n")
            elif not _OPEN.startswith(begin) or len(self._held) > _MAX_BLANK:
                self._state = "answer"
            else:
                return "", ""
        if self._state == "thinking":
            thought, closed, rest = self._held.partition(_CLOSE)
            if not closed:
                kept = next((n for n in range(len(_CLOSE) - 1, 0, -1) if thought.endswith(_CLOSE[:n])), 0)
                self._held = thought[len(thought) - kept :]
                return thought[: len(thought) - kept], ""
            self._state, self._held = "after", rest
            return thought, self._after()
        return "", self._after()

    def close(self) -> tuple[str, str]:
        """Returns what waited for more, at the end."""
        held, self._held = self._held, ""
        return (held, "") if self._state == "thinking" else ("", held)

    def _after(self) -> str:
        # Blank lines between the two are neither's.
        text = self._held.lstrip() if self._state == "after" else self._held
        self._held = ""
        if text:
            self._state = "answer"
        return text
