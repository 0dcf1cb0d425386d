"""What the chaos suite orders: batches whose every row carries a canary, which is known again wherever it lands."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

MODEL = "gpt-4o-mini"
#: Row markers (see docs/sandbox.md) and how such a row ends in a batch that is let run to its end.
ENDS = {
    "": "succeeded",
    "[[sandbox:duplicate]]": "succeeded",
    "[[sandbox:unknown]]": "succeeded",
    "[[sandbox:tokens=50]]": "succeeded",
    "[[sandbox:rate_limited times=1]]": "succeeded",
    "[[sandbox:server_error times=1]]": "succeeded",
    "[[sandbox:overloaded times=1]]": "succeeded",
    "[[sandbox:timeout times=1]]": "succeeded",
    "[[sandbox:skipped times=1]]": "succeeded",
    "[[sandbox:batch_expired times=1]]": "succeeded",
    "[[sandbox:skipped]]": "failed",
    "[[sandbox:invalid_request]]": "failed",
    "[[sandbox:content_filtered]]": "failed",
    "[[sandbox:context_length]]": "failed",
}


#: Those that the ordinary endpoint knows as well: the others spoil a provider batch or its lines.
LIVE = tuple(
    marker for marker in ENDS if not any(word in marker for word in ("duplicate", "unknown", "skipped", "expired"))
)


@dataclass(frozen=True)
class Row:
    custom_id: str
    canary: str
    marker: str
    named: bool = False  #: Whether the text says what the row is called, for a protocol in which its id does not.

    @property
    def text(self) -> str:
        name = f"[[sandbox:billed_as={self.custom_id}]]" if self.named else ""
        return f"{self.canary} is what this is about. {self.marker}{name}".strip()


@dataclass(frozen=True)
class Order:
    """One batch."""

    batch_id: str
    rows: tuple[Row, ...]
    key: str  #: Of the account that pays.
    provider: str = "sandbox"  #: In the crew's configuration; "claude" is Anthropic's protocol.
    direct: bool = False  #: Whether its rows are sent one by one.

    @classmethod
    def make(
        cls,
        rows: int,
        markers: dict[int, str],
        key: str,
        name: str | None = None,
        provider: str = "sandbox",
        direct: bool = False,
    ) -> Order:
        """Return an order of so many rows, with these markers on some of them."""
        name = name or f"chaos-{uuid.uuid4().hex[:10]}"
        return cls(
            batch_id=name,
            rows=tuple(
                Row(f"{name}-{n}", f"Canary{name[-10:]}x{n}x", markers.get(n, ""), named=provider == "claude")
                for n in range(rows)
            ),
            key=key,
            provider=provider,
            direct=direct,
        )

    def write(self, store: Path) -> str:
        """Write the input into the store; return its URI."""
        path = store / "in" / f"{self.batch_id}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"custom_id": r.custom_id, "input": r.text}) + "\n" for r in self.rows))
        return path.as_uri()
