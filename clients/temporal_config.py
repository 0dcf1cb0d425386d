"""What Temporal's own environment configuration says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..contract import ConfigurationError

if TYPE_CHECKING:
    from temporalio.envconfig import ClientConnectConfig

#: What every Temporal client takes for granted when only an address is missing.
_USUAL_ADDRESS = "localhost:7233"


def temporal_config() -> ClientConnectConfig:
    """Return what Temporal's environment configuration says (TEMPORAL_*, temporal.toml); empty if it says nothing.

    Raises:
        ConfigurationError: it contradicts itself, for example by naming a profile that is not there.
    """
    if not _may_be_there():
        return {}
    from temporalio.envconfig import ClientConfig

    try:
        config = ClientConfig.load_client_connect_config()
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(f"Temporal's own configuration cannot be used: {error}.") from None
    if config:
        config.setdefault("target_host", _USUAL_ADDRESS)
    return config


def _may_be_there() -> bool:
    """Return whether anything may be configured.

    To ask the SDK takes a third of a second for loading it, in which the embedded server can be started.
    """
    if any(name.upper().startswith("TEMPORAL_") for name in os.environ):
        return True
    try:
        home = Path.home()
    except RuntimeError:
        return True
    # Where the SDK looks on each system.
    folders = [home / ".config", home / "Library" / "Application Support"]
    folders += [Path(os.environ[name]) for name in ("XDG_CONFIG_HOME", "APPDATA") if os.environ.get(name)]
    return any((folder / "temporalio" / "temporal.toml").exists() for folder in folders)
