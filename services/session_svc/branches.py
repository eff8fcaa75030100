"""Begins a turn after another one: in its session if that is the last turn, otherwise in a copy."""

import contextlib
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from contract.enums import BusyPolicy
from contract.errors import SessionAgentMismatch
from session_svc.model.errors import SessionAlreadyExists, SessionBusy, SessionNotFound
from session_svc.model.session import Fork, SessionKey, new_session_id, session_id_of_request
from session_svc.model.turn import BeginTurn, Begun, Joined, Replayed
from session_svc.ports import SessionStore
from session_svc.turns import Turns


class Branches:
    """Begins turns as `Turns` does, also after turns that are not the last of their session."""

    def __init__(self, turns: Turns, sessions: SessionStore) -> None:
        self._turns = turns
        self._sessions = sessions

    def begin(self, turn: BeginTurn, time_left: float | None) -> Coroutine[Any, Any, Begun | Replayed | Joined]:
        """Begins the turn. A turn that names a previous turn is the next one of that session, or begins a new session
        with the window's turns up to the previous one, whose cost does not depend on the length of the history. The
        latter also happens if the session is busy, or another agent's. Raises as `Turns.begin`, and
        `StoredTurnNotFound`.
        """
        return self._begin_behind(turn, time_left) if turn.after_turn else self._turns.begin(turn, time_left)

    async def _begin_behind(self, turn: BeginTurn, time_left: float | None) -> Begun | Replayed | Joined:
        with contextlib.suppress(SessionBusy, SessionAgentMismatch):
            outcome = await self._turns.begin(replace(turn, must_exist=True, busy=BusyPolicy.REJECT), time_left)
            if isinstance(outcome, Replayed | Joined):
                return outcome
            try:
                number, _ = await self._sessions.number_of_turn(turn.key, turn.after_turn)
                if number == outcome.session.last_turn:
                    return outcome
            except BaseException:
                await self._turns.abort(outcome.lease)
                raise
            await self._turns.abort(outcome.lease)
        return await self._branch(turn, time_left)

    async def _branch(self, turn: BeginTurn, time_left: float | None) -> Begun | Replayed | Joined:
        number, source = await self._sessions.number_of_turn(turn.key, turn.after_turn)
        if source.user_id != turn.user_id:
            raise SessionNotFound(turn.key.session_id)
        new_id = new_session_id()
        if turn.request is not None:
            of_request = f"{turn.request.request_id}\n{turn.key.session_id}\n{turn.after_turn}"
            new_id = session_id_of_request(turn.key.project, turn.agent_uid, turn.user_id, of_request)
        fork = Fork(
            turn.key,
            new_id,
            number,
            window_messages=max(turn.window_messages, 1),
            continues=turn.continues,
            agent_id=turn.agent_id,
            agent_uid=turn.agent_uid,
        )
        try:
            await self._sessions.fork(fork)
            created = True
        except SessionAlreadyExists:
            if turn.request is None:
                raise
            created = False  # by an earlier attempt
        key = SessionKey(turn.key.project, new_id)
        begun = await self._turns.begin(replace(turn, key=key, must_exist=True, after_turn=""), time_left)
        return replace(begun, created=created) if isinstance(begun, Begun) else begun
