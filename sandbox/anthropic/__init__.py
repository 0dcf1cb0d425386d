"""Anthropic's wire protocol, as the sandbox speaks it."""

from .protocol import Anthropic

__all__ = ["Anthropic"]
