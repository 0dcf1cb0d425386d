"""OpenAI, and every server that speaks its Files and Batches."""

from .adapter import OpenAIProvider

__all__ = ["OpenAIProvider"]
