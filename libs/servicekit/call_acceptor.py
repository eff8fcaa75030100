"""grpcio's server, made robust against invalid method paths."""

import abc
import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, NoReturn, cast

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined, unused-ignore]
from grpc.aio import _server as grpcio

MAX_REFUSALS = 256
"""Concurrent refusals; further calls of unknown methods end without one."""


class NamedHandlers(grpc.GenericRpcHandler):
    """Handlers of known methods that are made on first use."""

    @property
    @abc.abstractmethod
    def methods(self) -> Sequence[str]:
        """The paths of the methods (`/package.Service/Method`)."""

    @abc.abstractmethod
    def load(self) -> None:
        """Loads the descriptors of the methods, if installed. Idempotent."""


def registered_server(
    *, interceptors: Sequence[Any] = (), options: Sequence[tuple[str, Any]], maximum_concurrent_rpcs: int
) -> grpc.aio.Server:
    """Returns a server as `grpc.aio.server` does, for methods that are registered (`add_registered_method_handlers`).

    grpcio decodes the path of every other call as UTF-8 in the task that accepts calls. An invalid path ends that task,
    and with it the server, for good, so any caller could stop it. Here such calls are answered UNIMPLEMENTED.
    """
    return cast("grpc.aio.Server", _RegisteredServer(interceptors, options, maximum_concurrent_rpcs))


class _RegisteredServer(grpcio.Server):  # type: ignore[misc, unused-ignore]
    def __init__(
        self, interceptors: Sequence[Any], options: Sequence[tuple[str, Any]], maximum_concurrent_rpcs: int
    ) -> None:
        self._loop = cygrpc.get_working_loop()
        self._server = _Acceptor(
            self._loop,
            None,
            (),
            tuple(interceptors),
            grpcio._augment_channel_arguments(tuple(options), None),
            maximum_concurrent_rpcs,
        )

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Adds handlers that name their methods (`NamedHandlers`); generated code registers its methods."""
        named = [handler for handler in generic_rpc_handlers if isinstance(handler, NamedHandlers)]
        self._server.add_generic_rpc_handlers(named)
        for handler in named:
            # grpcio falls back to these for registered methods without a handler.
            self._server.add_registered_method_handlers(dict.fromkeys(handler.methods))


class _Acceptor(cygrpc.AioServer):  # type: ignore[misc, unused-ignore]
    def _make_request_call_future(self, method: bytes | None) -> Any:
        if method is not None:
            return super()._make_request_call_future(method)
        return asyncio.get_running_loop().create_task(self._refuse_unknown(), name="calls of unknown methods")

    async def _refuse_unknown(self) -> NoReturn:
        refusals: set[asyncio.Task[None]] = set()
        while True:
            call = await self._request_call()
            if len(refusals) < MAX_REFUSALS:
                refusal = asyncio.get_running_loop().create_task(_refuse(call), name="refusal")
                refusals.add(refusal)
                refusal.add_done_callback(refusals.discard)
            del call  # this ends the call


async def _refuse(call: Any) -> None:
    context = cygrpc._ServicerContext(call, None, None, asyncio.get_running_loop())
    # Raises once it is answered, or its caller is gone.
    with contextlib.suppress(grpc.aio.AbortError, cygrpc.ExecuteBatchError):
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
