"""The protocols that the sandbox speaks: a folder and a line each."""

from __future__ import annotations

from collections.abc import Mapping

from .anthropic import Anthropic
from .openai import OpenAI
from .protocol import Protocol

#: By name. Where several have a path, the first one that knows itself by the request answers, and else the last.
PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in (Anthropic(), OpenAI())}
