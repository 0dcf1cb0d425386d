"""Anthropic's Message Batches."""

from .adapter import open_provider

__all__ = ["open_provider"]
