"""OpenAI, and every server that speaks its Files and Batches."""

from .adapter import open_provider

__all__ = ["open_provider"]
