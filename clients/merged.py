"""The results of a batch and of its retries as one: each row once, in the order of the requests."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ..activities.lines import split_lines
from ..activities.manifest import stream_results
from ..activities.store import Store
from ..contract import RowStatus, StoreError


class _Line(msgspec.Struct):
    """What is looked at in a line of results."""

    custom_id: str
    status: RowStatus


_line = msgspec.json.Decoder(_Line).decode


def merged(store: Store, uris: list[str]) -> Iterator[bytes]:
    """Yield a line for each row of a batch, without its break: its success, or else what the last run says of it.

    All files are read once, beside one another, with a piece of each in memory: the rows of a retry are in the order of
    the batch. Blocks: call it from a thread.

    Raises:
        StoreError: the store failed, or a file is not what Durabatch wrote.
    """
    first, *retries = [_read(store, uri) for uri in uris]
    ahead = [next(retry, None) for retry in retries]
    for custom_id, line, succeeded in first:
        for number, head in enumerate(ahead):
            if succeeded or head is None or head[0] != custom_id:
                continue
            _, line, succeeded = head
            ahead[number] = next(retries[number], None)
        yield line
    if any(ahead):
        raise StoreError(f"The results of a retry have rows that {uris[0]} does not have: bring the files back.")


def _read(store: Store, uri: str) -> Iterator[tuple[str, bytes, bool]]:
    for number, line in enumerate(split_lines(stream_results(store, uri)), 1):
        try:
            found = _line(line)
        except msgspec.MsgspecError:
            raise StoreError(f"Line {number} of {uri} is no result row: the file was changed.") from None
        yield found.custom_id, line, found.status is RowStatus.SUCCEEDED
