"""OpenAI's wire protocol, as the sandbox speaks it."""

from .protocol import OpenAI

__all__ = ["OpenAI"]
