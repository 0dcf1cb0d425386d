"""How much one shard holds: in batch mode what the provider takes as one batch, in direct mode what is good to run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..contract import BatchSpec, Mode
from .estimate import sure_input
from .providers import Provider, ProviderSettings
from .rows import Problem, RowRefused

#: Rows of a shard in direct mode, by default and at most. A shard is what one worker runs, so the last ones of a batch
#: leave workers idle: of 20,000 rows three workers run shards of 1,000 at 0.95 of three times the speed at best, and
#: those of 2,000 at 0.83. A worker that is lost holds up fewer rows, too. Each shard costs 0.1 s of processor time and
#: nine actions at Temporal, which is little beside 1,000 calls to a model. And 100 kB an answer is 100 MB of output.
DIRECT_ROWS, MOST_DIRECT_ROWS = 1_000, 2_000


@dataclass(frozen=True, kw_only=True)
class ShardLimits:
    """Where a shard is cut, and which rows do not fit into any."""

    mode: Mode
    max_rows: int
    max_bytes: int
    max_tokens: int | None = None  #: Estimated input tokens.
    max_inputs: int | None = None  #: Inputs, at an endpoint where a row may hold many.
    one_model: bool = False  #: Whether all rows of the input must name the same model.
    split_models: bool = False  #: Whether a row that names another model than those before it begins a shard.
    tokens_per_minute: int | None = None  #: In direct mode: a row that needs more alone can never be sent.
    reserves: bool = False  #: Whether a call counts against these with all that it may answer.
    facts: tuple[Any, ...]  #: What of this comes from the provider and the configuration, for a digest.

    def check_rate(self, provider: Provider, prepared: bytes, custom_id: str) -> None:
        """Refuse a row that surely needs more tokens than the account may use in a minute.

        What is not sure is sent: then it is the server that counts.

        Raises:
            RowRefused: the row cannot be sent.
        """
        if self.tokens_per_minute is None or provider.live is None:
            return
        needs = sure_input(prepared)
        if self.reserves:
            needs += provider.live.output_cap(provider.live.body(prepared)) or 0
        if needs > self.tokens_per_minute:
            raise RowRefused(
                None,
                f"may use {needs:,} tokens, more than the {self.tokens_per_minute:,} a minute that provider "
                f"{provider.name} is configured for (tokens_per_minute)",
                custom_id,
                Problem.TOO_LARGE,
            )


def shard_limits(mode: Mode, spec: BatchSpec, provider: Provider, settings: ProviderSettings) -> ShardLimits:
    """Return the limits of a batch's shards.

    In direct mode rows are sent one by one, so the limits of a provider's batches do not bound them, and models may be
    mixed. But rates hold for a model, and a shard is sent at one rate: so it ends where the rows go on with another
    model. Rows that are sorted by their model make few shards.
    """
    limits, able = spec.limits, provider.capabilities
    if mode is Mode.DIRECT:
        return ShardLimits(
            mode=mode,
            max_rows=min(limits.max_rows or DIRECT_ROWS, MOST_DIRECT_ROWS),
            max_bytes=min(limits.max_bytes or able.max_bytes, able.max_bytes),
            max_tokens=limits.max_tokens,
            split_models=True,
            tokens_per_minute=settings.tokens_per_minute,
            reserves=settings.counts == "reserved",
            facts=(mode.value, DIRECT_ROWS, able.max_bytes, settings.tokens_per_minute, settings.counts),
        )
    caps = [cap for cap in (limits.max_tokens, able.max_tokens) if cap is not None]
    inputs = able.max_inputs.get(spec.endpoint)
    return ShardLimits(
        mode=mode,
        max_rows=min(limits.max_rows or able.max_rows, able.max_rows),
        max_bytes=min(limits.max_bytes or able.max_bytes, able.max_bytes),
        max_tokens=min(caps) if caps else None,
        max_inputs=inputs,
        one_model=able.one_model,
        facts=(able.max_rows, able.max_bytes, able.max_tokens, *(() if inputs is None else (inputs,))),
    )
