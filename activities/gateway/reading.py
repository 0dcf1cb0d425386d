"""One reading of an input file: every line is checked, and every row is routed to the one provider of the batch."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...contract.gateway_batch import MAX_ERRORS, LineError
from ..duplicates import FirstOccurrences, IdHashes
from ..lease import Lease
from ..rows import Line, lines
from ..store import Store
from .checks import Checked, LineRefused, check_line, shown
from .routing import Router
from .tokens import Tokens

#: Bytes of a line. Three times the largest request that OpenAI takes, so that no line takes all of a worker's memory.
MAX_LINE = 64 * 1024**2

_EMPTY = LineError(
    code="empty_file", message="The input file is empty. Please ensure that the file has content.", param="file_id"
)
_DUPLICATE = LineError(
    code="duplicate_custom_id",
    message="The custom_id for this request is a duplicate of another request. "
    "The custom_id parameter must be unique for each request in a batch.",
    param="custom_id",
)


@dataclass
class Reading:
    """What a reading has found."""

    rows: int = 0
    errors: list[LineError] = field(default_factory=list)  #: The first, in the order of their lines.
    total_errors: int = 0
    provider: str | None = None  #: Of the first row that has one.
    provider_line: int = 0
    model: str | None = None  #: Of the first row.
    other_model: int | None = None  #: The first line that names another one.
    tokens: Tokens | None = None  #: What the rows may take, where that is asked for.

    too_long: bool = False  #: It has more rows than it may have.

    def cut(self, most: int) -> None:
        """Note that there are more rows than there may be, which counts more than whatever else is wrong."""
        message = f"The batch has more than {most:,} requests, which is the maximum."
        self.too_long, self.errors, self.total_errors = True, [], 0
        self.add(LineError(code="too_many_tasks", message=message), None)

    def add(self, error: LineError, line: int | None) -> None:
        self.total_errors += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(error.model_copy(update={"line": line}))


def read(
    store: Store,
    path: str,
    endpoint: str,
    router: Router,
    lease: Lease,
    most: int | None = None,
    *,
    count: bool = False,
) -> Reading:
    """Read a file; read it once more if two rows share an id, now knowing which. Blocks: call it from a thread.

    Args:
        most: rows that it may have; a longer one is not read any further.
        count: whether the tokens are counted that its rows may take.
    """
    ids = IdHashes()
    tokens = Tokens(endpoint) if count else None
    found = _read(store, path, endpoint, router, lease, most, ids, None, tokens)
    repeated = ids.repeated()
    if any(repeated) and not found.too_long:
        del ids
        found = _read(store, path, endpoint, router, lease, most, None, FirstOccurrences(repeated), None)
    found.tokens = tokens
    if not found.rows:
        found.add(_EMPTY, None)
    return found


def _read(
    store: Store,
    path: str,
    endpoint: str,
    router: Router,
    lease: Lease,
    most: int | None,
    ids: IdHashes | None,
    firsts: FirstOccurrences | None,
    tokens: Tokens | None,
) -> Reading:
    found = Reading()
    for line in lines(store.stream(path), MAX_LINE):
        lease.rows += 1
        if not found.rows % 1024:
            lease.check()
        found.rows += 1
        if most is not None and found.rows > most:
            found.cut(most)
            break
        try:
            checked = _checked(line, endpoint)
            custom_id: str | None = checked.custom_id
        except LineRefused as refused:
            checked, custom_id = None, refused.custom_id
            for error in refused.errors:
                found.add(error, line.number)
        if custom_id is not None:
            if ids is not None:
                ids.add(custom_id)
            if firsts is not None and firsts.earlier(custom_id, line) is not None:
                found.add(_DUPLICATE, line.number)
        if checked is not None:
            if tokens is not None:
                tokens.add(line.data)
            _route(found, router, checked.model, line.number)
    return found


def _checked(line: Line, endpoint: str) -> Checked:
    if not line.data:
        message = f"This line has {line.length:,} bytes, and may have {MAX_LINE:,} at most."
        raise LineRefused([LineError(code="request_too_large", message=message)])
    return check_line(line.data, endpoint)


def _route(found: Reading, router: Router, model: str, line: int) -> None:
    provider = router.provider_of(model)
    if provider is None:
        message = f"The provided model '{shown(model)}' is not supported by the Batch API."
        found.add(LineError(code="model_not_found", message=message, param="body.model"), line)
        return
    if found.provider is None:
        found.provider, found.provider_line, found.model = provider, line, model
    elif provider != found.provider:
        message = (
            f"The model '{shown(model)}' is run by the provider {provider}, and that of line {found.provider_line} by "
            f"{found.provider}. Each batch must contain requests for a single provider."
        )
        found.add(LineError(code="mismatched_model", message=message, param="body.model"), line)
    elif model != found.model and found.other_model is None:
        found.other_model = line
