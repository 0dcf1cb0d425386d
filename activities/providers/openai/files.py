"""OpenAI's Files: the rows of a batch go up as one, before its create."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from ....contract import ProviderNotFound, ProviderUnavailable
from .. import parsing
from ..base import Content, StoredFile
from ..http import Http, path_part
from ..pagination import ListingIncomplete, listed

#: Files remove themselves after this long at the latest (the API takes 1 hour to 30 days), should we not come back.
FILE_LIFE = timedelta(days=30)
#: Clocks differ, so a search looks a little further back than the batch is old.
CLOCK_SLACK = timedelta(minutes=15)


class OpenAIFiles:
    """The files of one account."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def upload(self, content: Content) -> str:
        boundary = uuid4().hex
        fields = {
            "purpose": "batch",
            "expires_after[anchor]": "created_at",
            "expires_after[seconds]": str(int(FILE_LIFE.total_seconds())),
        }
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        head += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{content.name}"\r\n'
            "Content-Type: application/jsonl\r\n\r\n"
        )
        tail = f"\r\n--{boundary}--\r\n"

        async def body() -> AsyncIterator[bytes]:
            yield head.encode()
            async for chunk in content.chunks:
                yield chunk
            yield tail.encode()

        return await self._http.call(
            "POST",
            "/files",
            read=_id,
            content=body(),
            headers={
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(len(head.encode()) + content.size + len(tail)),
            },
        )

    async def find(self, prefix: str, since: datetime, whole: bool = False) -> list[StoredFile]:
        oldest = since - CLOCK_SLACK
        found: list[StoredFile] = []
        try:
            async for item in self._pages():
                created = parsing.instant(item.get("created_at"))
                if created is not None and created < oldest:
                    break
                name = parsing.text(item.get("filename"))
                if name is not None and name.startswith(prefix) and parsing.text(item.get("id")):
                    size = parsing.count(item.get("bytes")) or 0
                    found.append(StoredFile(id=_id(item), name=name, bytes=size, created_at=created))
        except ListingIncomplete as error:
            # A file that is not seen removes itself in the end, and its rows are uploaded again.
            if whole:
                raise ProviderUnavailable(str(error)) from None
        return found

    async def delete(self, file_id: str) -> None:
        try:
            await self._http.send("DELETE", f"/files/{path_part(file_id)}")
        except ProviderNotFound:
            return

    def _pages(self) -> AsyncIterator[Mapping[str, Any]]:
        return listed(self._http, "/files", "after", {"purpose": "batch", "limit": 1000, "order": "desc"})


def _id(answer: Any) -> str:
    return parsing.required(parsing.fields(answer), "id")
