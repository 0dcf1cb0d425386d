"""Durabatch: durable LLM batches on Temporal.

The front door re-exports the contract and the client, each on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clients import BatchClient as BatchClient
    from .contract import *  # noqa: F403
    from .workers import BatchPlugin as BatchPlugin

__version__ = "0.1.0"

#: Names that do not live in the contract, and where they do.
_ELSEWHERE = {"BatchClient": "clients", "BatchPlugin": "workers", "BatchWorkflow": "workflows"}


def __getattr__(name: str) -> Any:
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__all__":
        return __dir__()
    module = importlib.import_module(f"{__name__}.{_ELSEWHERE.get(name, 'contract')}")
    if name not in module.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)


def __dir__() -> list[str]:
    contract = importlib.import_module(f"{__name__}.contract")
    return sorted([*contract.__all__, *_ELSEWHERE, "__version__"])
