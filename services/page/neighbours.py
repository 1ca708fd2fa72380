"""How the page calls a neighbour: one place that decides it for statuses and questions."""

from __future__ import annotations

import grpc

from services.page.settings import Settings
from services.runtime.grpc_client import channel


def open_channel(settings: Settings, target: str) -> grpc.aio.Channel:
    """A channel to ``host:port``; close it."""
    return channel(target, settings.grpc_client, settings.tls)
