"""Deletions of many sessions, which take session_svc several calls."""

import asyncio

from google.protobuf.duration_pb2 import Duration

from chat_gateway.http_edge.dependencies import Dependencies
from contract.reasons import Reason
from parley.session.v1 import session_service_pb2 as pb
from servicekit.errors import DeadlineExceeded, ServiceError


async def purge(deps: Dependencies, request: pb.DeleteSessionsRequest) -> int:
    """Repeats the call until nothing is left: session_svc deletes as many per call as its deadline allows.

    Returns how many were deleted. Raises `DeadlineExceeded` if more remain; a repetition continues.
    """
    deleted = 0
    try:
        async with asyncio.timeout(deps.settings.purge_timeout):
            while True:
                try:
                    round_ = await deps.session_svc.call(deps.stubs.sessions.DeleteSessions, request)
                except ServiceError as error:
                    if error.reason != Reason.DEADLINE_EXCEEDED:
                        raise
                    continue
                deleted += round_.deleted_count
                if round_.deleted_count == 0:
                    return deleted
    except TimeoutError:
        raise DeadlineExceeded(
            f"{deleted} sessions were deleted and more remain: repeat the request", bound="purge_timeout"
        ) from None


async def purge_project(deps: Dependencies, project: str) -> None:
    """Deletes the sessions of a project that is gone, also those of no agent. Idempotent; raises as `purge` does.

    session_svc removes those of agents by itself. A project that had none is not named in the audit log again.
    """
    listed = pb.ListSessionsRequest(project=project, page_size=1)
    if (await deps.session_svc.call(deps.stubs.sessions.ListSessions, listed)).sessions:
        await purge(deps, pb.DeleteSessionsRequest(project=project, idle_longer_than=Duration()))
