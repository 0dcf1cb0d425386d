"""What Temporal's own environment configuration says."""

from __future__ import annotations

from temporalio.envconfig import ClientConfig, ClientConnectConfig

from ..contract import ConfigurationError

#: What every Temporal client takes for granted when only an address is missing.
_USUAL_ADDRESS = "localhost:7233"


def temporal_config() -> ClientConnectConfig:
    """Return what Temporal's environment configuration says (TEMPORAL_*, temporal.toml); empty if it says nothing.

    Raises:
        ConfigurationError: it contradicts itself, for example by naming a profile that is not there.
    """
    try:
        config = ClientConfig.load_client_connect_config()
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(f"Temporal's own configuration cannot be used: {error}.") from None
    if config:
        config.setdefault("target_host", _USUAL_ADDRESS)
    return config
