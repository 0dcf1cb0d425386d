"""Anthropic's Message Batches."""

from .adapter import AnthropicProvider

__all__ = ["AnthropicProvider"]
