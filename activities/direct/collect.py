"""COLLECT: what an attempt's runs have kept, joined into its output as a provider's batch would leave it."""

from __future__ import annotations

from collections.abc import Iterator

from ...contract.layout import OUTPUT, answers_path
from ...contract.steps import COLLECT, Collected, CollectRequest
from ..attempt_rows import AttemptRows
from ..lease import Lease
from ..resources import Resources
from ..step import in_thread, step
from ..store import Store
from .kept import UNSENT, Found, KeptFile, KeptRows, Line

#: Bytes copied at a time.
_CHUNK = 1 << 18


class Collect:
    """The step that ends an attempt in direct mode."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @step(COLLECT, long=True)
    async def collect(self, request: CollectRequest, lease: Lease) -> Collected:
        """Write the attempt's output from what its runs have kept, and clear that away.

        Called again, it answers the same; where a reset has sent more rows since, their answers are added.
        """
        store, attempt = self._resources.store, request.attempt
        root = await self._resources.batch_folder(attempt)
        rows = await AttemptRows.read(store, attempt)
        kept = KeptRows(store, attempt, rows.digest)
        found = await kept.find()
        done = found.ran.lines if found.ran else []
        chosen = _chosen(found)
        if found.ran is None or chosen:
            output = answers_path(root, attempt.shard, attempt.number, OUTPUT)
            await lease.hold()
            lines = await in_thread(lease, lambda: _join(store, output, done, found.files, chosen, lease))
            unsent = {line.row for line in lines if line.status == UNSENT}
            repeated = await kept.repeated(found.runs, unsent)
            await lease.hold()
            await kept.write_ran(lines, repeated)
        else:
            lines, repeated = done, found.ran.repeated
        # What was sent without an answer is still counted when a reset sends it again.
        complete = len(lines) >= rows.count
        for path in found.left if complete else [file.path for file in found.files]:
            await store.delete(path)
        return Collected(lines=len(lines), succeeded=sum(line.succeeded for line in lines), repeated=repeated)


def _chosen(found: Found) -> dict[int, tuple[str, int]]:
    """Return, for each row that the output does not have yet, the file and the place of its answer there.

    The first answer counts, but a success counts before a failure.
    """
    done = {line.row for line in found.ran.lines} if found.ran else set[int]()
    chosen: dict[int, tuple[str, int]] = {}
    good = set[int]()
    for file in found.files:
        for place, line in enumerate(file.lines):
            if line.row in done or (line.row in chosen and (line.row in good or not line.succeeded)):
                continue
            chosen[line.row] = (file.path, place)
            if line.succeeded:
                good.add(line.row)
    return chosen


def _join(
    store: Store,
    output: str,
    done: list[Line],
    files: list[KeptFile],
    chosen: dict[int, tuple[str, int]],
    lease: Lease,
) -> list[Line]:
    """Write the output: the lines that it has already, and those chosen. Blocks: runs in a thread."""
    lines = list(done)
    with store.writer(output) as out:
        if done:
            for chunk in store.stream(output, 0, sum(line.length for line in done), _CHUNK):
                out.write(chunk)
                lease.check()
        for file in files:
            wanted = [line for place, line in enumerate(file.lines) if chosen.get(line.row) == (file.path, place)]
            for start, end in _stretches(file, wanted):
                for chunk in file.read(store, start, end, _CHUNK):
                    out.write(chunk)
            lines += wanted
            lease.rows = len(lines)
            lease.check()
    return lines


def _stretches(file: KeptFile, wanted: list[Line]) -> Iterator[tuple[int, int]]:
    """Yield where the wanted lines of a file are, as few stretches of bytes as possible."""
    left = iter(wanted)
    line = next(left, None)
    at = start = file.start
    end = start
    for one in file.lines:
        if one is line:
            if at != end:
                if end > start:
                    yield start, end
                start = at
            end = at + one.length
            line = next(left, None)
        at += one.length
    if end > start:
        yield start, end
