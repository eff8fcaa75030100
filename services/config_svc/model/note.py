"""What is kept with a revision beside its content."""

from dataclasses import dataclass

from config_svc.model import rules
from servicekit.errors import Violations


@dataclass(frozen=True, slots=True)
class Note:
    """Who writes, and what they say of it."""

    author: str = ""
    comment: str = ""

    def check(self, found: Violations) -> None:
        """Reports a comment that is too long, or holds NUL."""
        rules.check_text(found, "comment", self.comment, maximum=rules.MAX_COMMENT_CHARACTERS)
