"""What starts, steers and watches batches: the Python client, and the clean-up of what batches leave behind."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import BatchClient
    from .connection import TemporalUnavailable
    from .listing import BatchRecord
    from .outcome import BatchOutcome
    from .requests import Requests
    from .start import Started
    from .tries import Trial
    from .whole_cost import CostRange

__all__ = [
    "BatchClient",
    "BatchOutcome",
    "BatchRecord",
    "CostRange",
    "Requests",
    "Started",
    "TemporalUnavailable",
    "Trial",
]

#: Where each name lives. They are imported on first use, since the command passes here to print its help.
_HOMES = {
    "BatchClient": "client",
    "BatchOutcome": "outcome",
    "BatchRecord": "listing",
    "CostRange": "whole_cost",
    "Requests": "requests",
    "Started": "start",
    "TemporalUnavailable": "connection",
    "Trial": "tries",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
