"""A channel whose certificate changes while it is used.

gRPC binds a channel to its credentials for good. So this one holds a channel per material: the first call
after the files have changed makes a new one and goes there, as do all that follow; the old one is closed
when the calls on it have had time to end, streams included.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc

from services.runtime.tls import Material, TlsFiles

# Longer than any deadline of the loop's calls that have one answer.
_LINGER_S = 60.0
Connect = Callable[[grpc.ChannelCredentials], grpc.aio.Channel]


class RotatingChannel(grpc.aio.Channel):
    """Used as any other channel, on one event loop. ``connect`` opens a channel with given credentials."""

    def __init__(self, files: TlsFiles, connect: Connect, linger_s: float = _LINGER_S) -> None:
        self._files = files
        self._connect = connect
        self._linger_s = linger_s
        self._material: Material = files.material
        self._channel = connect(self._material.channel_credentials())
        self._streams: Counter[grpc.aio.Channel] = Counter()
        self._retiring: dict[asyncio.Task[None], grpc.aio.Channel] = {}

    def newest(self) -> grpc.aio.Channel:
        """The channel with the newest certificate."""
        material = self._files.material
        if material is not self._material:
            old, self._material = self._channel, material
            self._channel = self._connect(material.channel_credentials())
            task = asyncio.get_running_loop().create_task(self._retire(old), name="old channel")
            self._retiring[task] = old
            task.add_done_callback(self._retiring.pop)
        return self._channel

    async def _retire(self, old: grpc.aio.Channel) -> None:
        await asyncio.sleep(self._linger_s)
        # A stream is not cut for it: the server ends it when the connection has reached its age.
        while self._streams[old]:  # noqa: ASYNC110 - rare, and nobody waits for it
            await asyncio.sleep(self._linger_s)
        del self._streams[old]
        await old.close()

    def opened(self, channel: grpc.aio.Channel, call: Any) -> None:
        """Keeps the channel until the streaming call on it has ended."""
        self._streams[channel] += 1

        def ended(_call: Any) -> None:
            self._streams[channel] -= 1

        call.add_done_callback(ended)

    async def close(self, grace: float | None = None) -> None:
        """Closes this and what is left of older ones."""
        retiring = dict(self._retiring)
        for task in retiring:
            task.cancel()
        for channel in (self._channel, *retiring.values()):
            await channel.close(grace)

    async def __aenter__(self) -> RotatingChannel:
        return self

    async def __aexit__(self, kind: object, value: object, trace: object) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Of the newest."""
        return self.newest().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Of the newest."""
        await self.newest().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """The newest is connected."""
        await self.newest().channel_ready()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """As the channel's."""
        return _Callable(self, "unary_unary", args, kwargs)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """As the channel's."""
        return _Stream(self, "unary_stream", args, kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """As the channel's."""
        return _Stream(self, "stream_unary", args, kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """As the channel's."""
        return _Stream(self, "stream_stream", args, kwargs)


class _Callable:
    """One method, on whichever channel is the newest."""

    def __init__(
        self, owner: RotatingChannel, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._owner = owner
        self._made = (kind, args, kwargs)
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        channel = self._owner.newest()
        if channel is not self._channel:
            kind, how, options = self._made
            self._channel, self._call = channel, getattr(channel, kind)(*how, **options)
        return self._call(*args, **kwargs)


class _Stream(_Callable):
    """One that may last: its channel is told."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = super().__call__(*args, **kwargs)
        assert self._channel is not None  # the call was made on it
        self._owner.opened(self._channel, call)
        return call
