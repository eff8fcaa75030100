"""Where notices of turns go, as values."""

from servicekit.values import value
from session_svc.model.session import SessionKey


@value
class PushTurn:
    """The turn whose notices are meant, of the user's session."""

    key: SessionKey
    user_id: str
    turn_id: str


@value
class PushConfig:
    """Where notices go, in a form of the gateways' own. `id` is unique among those of the turn."""

    id: str
    content: bytes
