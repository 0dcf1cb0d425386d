"""Which provider runs a model. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple


class Route(NamedTuple):
    """Models, and who runs them."""

    model: str  #: A pattern, such as "gpt-*".
    provider: str  #: Its name in the configuration.


class Router:
    """Finds the provider of each row of one batch.

    Args:
        routes: the configuration's; the first that fits decides.
        provider: who runs every model, whatever the routes say; None to go by them.
        models: patterns of the models that may be used; none for all.
    """

    def __init__(self, routes: Sequence[Route], provider: str | None, models: Sequence[str]) -> None:
        self._routes = routes
        self._provider = provider
        self._models = models
        self._known: dict[str, str | None] = {}

    def provider_of(self, model: str) -> str | None:
        """Return who runs a model; None where nobody does, or the caller may not use it."""
        if model not in self._known:
            if len(self._known) > 10_000:  # a file of nothing but made-up names
                self._known.clear()
            self._known[model] = self._find(model)
        return self._known[model]

    def _find(self, model: str) -> str | None:
        if self._models and not any(fnmatchcase(model, pattern) for pattern in self._models):
            return None
        if self._provider is not None:
            return self._provider
        return next((route.provider for route in self._routes if fnmatchcase(model, route.model)), None)
