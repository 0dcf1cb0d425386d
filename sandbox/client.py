"""A client of the sandbox's admin routes."""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec

from .errors import SandboxError


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

    async def reset(self) -> None:
        """Forget everything and go back to the settings given at start."""
        await self._call("POST", "/admin/reset", {})

    async def revoke(self, key: str) -> None:
        """Refuse an API key from now on."""
        await self._call("POST", "/admin/keys", {"revoke": key})

    async def restore(self, key: str) -> None:
        """Accept an API key again."""
        await self._call("POST", "/admin/keys", {"restore": key})

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
