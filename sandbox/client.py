"""A client of the sandbox's admin routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec

from .errors import SandboxError

#: Calls or ids of one page.
_PAGE = 10_000


class SandboxAdmin:
    """Sets faults and settings of a running sandbox and reads its books.

    Args:
        url: Where the sandbox listens, such as `http://127.0.0.1:8080`.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    async def fault(self, op: str, kind: str, **options: Any) -> dict[str, Any]:
        """Set a fault and return it as it was set, with its `id`.

        Args:
            op: The operation, such as `batches.create`, or `*`.
            kind: The kind, such as `lost_answer`.
            options: `times`, `skip`, `seconds`, `status`, `retry_after`, `code`, `type`, `message`,
                `delay_seconds`, `fraction`, `outcome`, `put`, `drop`, `body`, `media`.
        """
        return await self._call("POST", "/admin/faults", {"op": op, "kind": kind, **options})

    async def faults(self) -> list[dict[str, Any]]:
        """The faults that can still hit a request or hold one."""
        found: list[dict[str, Any]] = (await self._call("GET", "/admin/faults"))["faults"]
        return found

    async def clear(self, fault_id: int | None = None) -> None:
        """Remove one fault or all of them, and let go of the requests they hold."""
        await self._call("DELETE", "/admin/faults" if fault_id is None else f"/admin/faults/{fault_id}")

    async def settings(self, **changes: Any) -> dict[str, Any]:
        """Change settings and return all of them."""
        return await self._call("POST", "/admin/settings", changes)

    async def books(self, *, summary: bool = False) -> dict[str, Any]:
        """What there ever was and what was billed; a summary has no maps of rows, which can be huge."""
        return await self._call("GET", "/admin/books?summary=1" if summary else "/admin/books")

    async def live(self) -> dict[str, Any]:
        """What became of the live calls, in numbers; cheap, however many there were.

        `calls`, `open` (now), `most_open`, `how` (they ended: `answered`, `refused`, `dropped`, `reset`, `open`),
        `status`, `ids`, `repeated` (calls of an id beyond its first), `repeated_unrefused` (refused ones aside),
        `answered_again`, `called_again` (id and times, of the first 1,000 ids that were called more than once) and
        `now` (the sandbox's monotonic seconds).
        """
        return await self._call("GET", "/admin/live")

    def calls(self, *, id: str | None = None, how: str | None = None, after: int = 0) -> AsyncIterator[dict[str, Any]]:
        """Every live call in the order of arrival, or those of an id or with an end, from a number on."""
        given = {"id": id, "how": how}
        return self._pages("/admin/live/calls", "calls", after, {key: value for key, value in given.items() if value})

    def ids(self) -> AsyncIterator[dict[str, Any]]:
        """Every id of a live call, with how often it was `called`, `answered` and `refused`."""
        return self._pages("/admin/live/ids", "ids", 0, {})

    async def rates(
        self, *, period: float | None = None, since: float | None = None, until: float | None = None
    ) -> list[dict[str, Any]]:
        """What the sandbox measured of each account and model: the most in any sliding period, and the mean.

        Args:
            period: Seconds; the setting `rate_period_seconds` when not given.
            since: Look at calls that arrived at this time or later, in monotonic seconds (`live()["now"]`).
            until: Look at calls that arrived before this time.
        """
        given = {"period": period, "since": since, "until": until}
        query = urlencode({key: value for key, value in given.items() if value is not None})
        found: list[dict[str, Any]] = (await self._call("GET", f"/admin/live/rates?{query}"))["rates"]
        return found

    async def reset(self) -> None:
        """Forget everything and go back to the settings given at start."""
        await self._call("POST", "/admin/reset", {})

    async def revoke(self, key: str) -> None:
        """Refuse an API key from now on."""
        await self._call("POST", "/admin/keys", {"revoke": key})

    async def restore(self, key: str) -> None:
        """Accept an API key again."""
        await self._call("POST", "/admin/keys", {"restore": key})

    async def _pages(
        self, path: str, name: str, after: int | None, query: dict[str, str]
    ) -> AsyncIterator[dict[str, Any]]:
        while after is not None:
            page = await self._call("GET", f"{path}?{urlencode({**query, 'after': after, 'limit': _PAGE})}")
            for item in page[name]:
                yield item
            after = page["next"]

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else msgspec.json.encode(body)
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, data=data) as response,
        ):
            answer: dict[str, Any] = msgspec.json.decode(await response.read())
            if response.status >= 400:
                raise SandboxError(answer["error"]["message"])
            return answer
