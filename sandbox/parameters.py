"""The parameters of a request: the names that are known, and the ranges that numbers have to lie in."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import NamedTuple

from .prompt import Body


def names(words: str) -> frozenset[str]:
    """The names in a text, between blanks."""
    return frozenset(words.split())


class Range(NamedTuple):
    """What a number may be."""

    low: float
    high: float | None = None
    whole: bool = False


class Misfit(NamedTuple):
    """A value that is out of its range, or no number."""

    name: str
    value: object
    range: Range


def misfit(body: Body, ranges: Mapping[str, Range]) -> Misfit | None:
    """The first value that does not fit; null and what is not there fit."""
    for name in ranges.keys() & body.keys():
        value, allowed = body[name], ranges[name]
        if value is None:
            continue
        kinds = int if allowed.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return Misfit(name, value, allowed)
        if value < allowed.low or (allowed.high is not None and value > allowed.high):
            return Misfit(name, value, allowed)
    return None


def unknown(body: Body, known: Set[str]) -> str | None:
    """The first parameter that is not known."""
    return next((name for name in body if name not in known), None)
