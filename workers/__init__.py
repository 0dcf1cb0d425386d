"""What runs batches: the worker, the plugin for other people's workers, the embedded Temporal, settings."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .plugin import BatchPlugin
    from .settings import Settings
    from .worker import open_worker

__all__ = ["BatchPlugin", "Settings", "open_worker"]

#: Where each name lives. They are imported on first use: the command reads its settings and starts the embedded
#: Temporal before it loads what a worker needs.
_HOMES = {"BatchPlugin": "plugin", "Settings": "settings", "open_worker": "worker"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
