"""OpenAI, and every server that speaks its Files and Batches."""

from .adapter import open_provider, row_format

__all__ = ["open_provider", "row_format"]
