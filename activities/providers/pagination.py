"""A listing, page after page: bounded, and honest about whether its end was reached."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import parsing
from .http import Http

#: Pages of one listing. At OpenAI's 100 a page these are 200,000 batches: 100 hours' worth, at its 2,000 an hour.
MAX_PAGES = 2_000

_log = logging.getLogger(__name__)


class ListingIncomplete(Exception):
    """The provider's listing cannot be read to its end, so it does not prove that something is not there.

    Not an error of the contract: whoever searches knows whether that matters.
    """


@dataclass(frozen=True)
class Page:
    """One page of a listing."""

    items: tuple[Mapping[str, Any], ...]  #: The objects in it, with an id or without; anything else is passed over.
    count: int  #: How many there were with the others.
    more: bool | None  #: Whether there are more; None if it does not say.
    cursor: str | None  #: The id after which the next page begins.


def page(answer: Any) -> Page:
    """Return an answer as a page: `{data, has_more, last_id}`, or a bare array where a server has no pages.

    Raises:
        parsing.Unreadable: it is neither; then it says nothing about what there is.
    """
    if isinstance(answer, list):
        answer = {"data": answer, "has_more": False}
    answer = parsing.fields(answer)
    listed = answer.get("data")
    # Servers in Go write an empty array as null. Without the field it may be anything, an error even.
    if not (isinstance(listed, list) or (listed is None and "data" in answer)):
        raise parsing.Unreadable("field `data` is no array" if "data" in answer else "field `data` is missing")
    listed = listed or []
    items = tuple(one for one in listed if isinstance(one, dict))
    last = next((found for one in reversed(items) if (found := parsing.text(one.get("id")))), None)
    return Page(
        items=items,
        count=len(listed),
        more=parsing.flag(answer.get("has_more")),
        cursor=last or parsing.text(answer.get("last_id")),
    )


def listed(http: Http, path: str, after: str, params: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
    """Yield the items of the listing at a path, each once; the caller stops when it has seen enough.

    Args:
        http: the account.
        after: the name of the parameter that asks for what follows an id.
        params: the other parameters of every page.

    Raises:
        ListingIncomplete: its end cannot be reached: nobody knows what else there is.
    """
    return pages(
        http.name, f"GET {path}", after, lambda cursor: http.call("GET", path, params={**params, **cursor}, read=page)
    )


async def pages(
    name: str, what: str, after: str, ask: Callable[[Mapping[str, str]], Awaitable[Page]]
) -> AsyncIterator[Mapping[str, Any]]:
    """Yield a listing's items, each once; whoever iterates stops when it has seen enough.

    Args:
        name: the provider's.
        what: the route, as errors and warnings name it.
        after: the name of the parameter that asks for what follows an id.
        ask: returns a page; takes the parameters that choose it.

    Raises:
        ListingIncomplete: its end cannot be reached: nobody knows what else there is.
    """
    seen = set[int]()  # hashes, which take a third of the memory
    cursor: dict[str, str] = {}
    for _ in range(MAX_PAGES):
        found = await ask(cursor)
        before = len(seen)
        for one in found.items:
            known_as = parsing.text(one.get("id"))
            if known_as is not None and hash(known_as) in seen:
                continue
            if known_as is not None:
                seen.add(hash(known_as))
            yield one
        # Without a word about more the next page is asked for all the same: only an empty one is surely the last.
        if not found.count or found.more is False:
            return
        fresh = len(seen) > before
        if found.more is None and not fresh:
            return  # it repeats itself and promises nothing: all there is came at once
        if not fresh or found.cursor is None:
            raise _incomplete(name, what, f"it promises more after {len(seen):,} items, and shows no others")
        cursor = {after: found.cursor}
    raise _incomplete(name, what, f"it goes on after {MAX_PAGES:,} pages")


def _incomplete(name: str, what: str, why: str) -> ListingIncomplete:
    message = f"Provider {name} lists without end at {what}: {why}; what lies beyond cannot be seen."
    _log.warning(message)
    return ListingIncomplete(message)
