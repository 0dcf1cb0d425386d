"""Anthropic's Message Batches."""

from .adapter import open_provider, row_format

__all__ = ["open_provider", "row_format"]
