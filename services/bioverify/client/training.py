"""Starting, stopping and watching training runs from asyncio.

```python
async with TrainingClient("127.0.0.1:15058", token_file) as trainer:
    await trainer.start("first", "rbio1-exp", "cpu", ["grpo.max_steps=100"])
    async for event in trainer.watch("first"):
        ...
```
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from bioverify.client.errors import ClientError, checked_target
from bioverify.core.runs import StepFigures, TrainingRun
from bioverify.transport.channels import CHANNEL_OPTIONS
from bioverify.transport.headers import Sent, outgoing
from bioverify.transport.refusals import Refusal, refusal_from_error
from bioverify.transport.tls import LiveIdentity, Pems, TlsIdentity, open_aio_channel
from bioverify.v1 import training_pb2, training_pb2_grpc
from bioverify.wire.runs import event_from_wire, run_from_wire

# A cluster may take its time to answer the service.
_DEADLINE_S = 30.0


class TrainingClient:
    """Asks one training service. ``token_file``: holds what it asks of its callers; None: nothing is asked.

    The file is read at every call, because tokens are replaced. ``tls``: whom it shows itself to be, if the service
    asks for certificates. Raises TlsError for unusable files, ClientError for a target that is a URL; its methods raise
    ClientError.
    """

    def __init__(self, target: str, token_file: Path | None = None, *, tls: TlsIdentity | None = None) -> None:
        self.target = checked_target(target)
        self._token_file = token_file
        self._tls = LiveIdentity(tls) if tls is not None else None
        self._shown: Pems | None = None
        self._channels: list[grpc.aio.Channel] = []

    async def start(self, name: str, recipe: str, preset: str, changes: Sequence[str] = ()) -> TrainingRun:
        """Start a new run."""
        request = training_pb2.StartRunRequest(name=name, recipe=recipe, preset=preset, changes=changes)
        return run_from_wire((await self._ask("StartRun", request)).run)

    async def resume(self, name: str) -> TrainingRun:
        """Go on with a run that has ended before it was finished."""
        request = training_pb2.StartRunRequest(name=name, resume=True)
        return run_from_wire((await self._ask("StartRun", request)).run)

    async def stop(self, name: str) -> TrainingRun:
        """Let a run keep a checkpoint and end; it is then stopping."""
        return run_from_wire((await self._ask("StopRun", training_pb2.StopRunRequest(name=name))).run)

    async def list_runs(self) -> list[TrainingRun]:
        """The latest first."""
        reply = await self._ask("ListRuns", training_pb2.ListRunsRequest())
        return [run_from_wire(message) for message in reply.runs]

    async def watch(self, name: str, *, after_step: int = 0) -> AsyncIterator[TrainingRun | StepFigures]:
        """How the run stands, and the figures of its steps, until it has ended; a sign of life every 15 s."""
        request = training_pb2.WatchRunRequest(name=name, after_step=after_step)
        try:
            async for message in self._stub().WatchRun(request, metadata=self._metadata()):
                yield event_from_wire(message)
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        self._channels.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _metadata(self) -> Sent:
        if self._token_file is None:
            return outgoing()
        try:
            return (*outgoing(), ("authorization", f"Bearer {self._token_file.read_text().strip()}"))
        except OSError as error:
            message = f"the token of the training service cannot be read: {error}"
            raise ClientError(message, Refusal(grpc.StatusCode.UNAUTHENTICATED, message)) from error

    def _stub(self) -> Any:
        # Opened inside the running loop, which it belongs to; again for a new certificate, the old one for its watches.
        shown = self._tls.current() if self._tls is not None else None
        if not self._channels or shown is not self._shown:
            self._shown = shown
            self._channels.append(open_aio_channel(self.target, CHANNEL_OPTIONS, shown))
        return training_pb2_grpc.TrainingServiceStub(self._channels[-1])

    async def _ask(self, method: str, request: Any) -> Any:
        call: Awaitable[Any] = getattr(self._stub(), method)(request, metadata=self._metadata(), timeout=_DEADLINE_S)
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error

    def _error(self, error: grpc.aio.AioRpcError) -> ClientError:
        refusal = refusal_from_error(error)
        if refusal.code is grpc.StatusCode.UNAVAILABLE and not refusal.reason:
            message = f"no training service at {self.target}: {refusal.message}. Start one: bioverify runs serve"
        else:
            message = f"the training service at {self.target} refused ({refusal.code.name}): {refusal.message}"
        return ClientError(message, refusal)
