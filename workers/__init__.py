"""What runs batches: the worker, the plugin for other people's workers, the embedded Temporal, settings."""

from .plugin import BatchPlugin
from .settings import Settings
from .worker import open_worker

__all__ = ["BatchPlugin", "Settings", "open_worker"]
