"""What durabatch.toml says, and the keys that it names: read once, when the process starts.

::

    [store]
    url = "durabatch-data"          # a folder, or file:///…, s3://bucket/prefix, gs://…, az://…

    [worker]
    heartbeat = "20s"               # how soon a dead worker is noticed

    [providers.openai]              # openai and anthropic are there without being written
    kind = "openai"
    api_key_env = "OPENAI_API_KEY"

A key goes only where its owner sent it. The usual variable of a kind (OPENAI_API_KEY) is read for that kind's own
address. A provider with another `base_url` names its variable by `api_key_env`, or has none: on a loopback address that
is taken for granted, elsewhere `api_key_env = ""` says so; such a server is sent the word "unused" as its key.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from ..activities.providers.kinds import KINDS
from ..activities.providers.settings import NO_KEY, ProviderSettings, is_loopback
from ..contract import TASK_QUEUE, ConfigurationError, Duration, MissingKey, UnknownProvider
from .gateway_settings import GatewayKey, GatewayRoute, GatewaySettings, GatewayWebhook

#: The environment variable that names the configuration file.
CONFIG_VARIABLE = "DURABATCH_CONFIG"
#: The file that is read when the variable is not set, if it is there.
CONFIG_FILE = "durabatch.toml"

_VARIABLE = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*)?")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoreSettings(_Section):
    """`[store]`: where inputs, plans and results are kept."""

    url: Annotated[
        str,
        Field(
            min_length=1,
            description="A folder (relative to durabatch.toml), or file:///…, s3://bucket/prefix, gs://…, az://….",
        ),
    ] = "durabatch-data"
    results_file_bytes: Annotated[
        int,
        # S3 takes what we write as one object up to 80 GiB.
        Field(ge=0, le=64 * 1024**3, description="Results up to this size become one file; larger ones stay in parts."),
    ] = 4 * 1024**3


class LogFormat(StrEnum):
    """How the log is written."""

    TEXT = "text"  #: Lines for people.
    JSON = "json"  #: One object a line, for programs.


class WorkerSettings(_Section):
    """`[worker]`: how this process works."""

    heartbeat: Annotated[Duration, Field(description="How soon a dead worker is noticed: 2 s to 5 min.")] = timedelta(
        seconds=20
    )
    task_queue: Annotated[str, Field(min_length=1, max_length=200, description="The task queue it polls.")] = TASK_QUEUE
    max_concurrent_activities: Annotated[
        int,
        Field(
            ge=1,
            le=1000,
            description="Steps that run at a time; half of them long ones at most (plans, uploads, accounts, …), so "
            "that polls and cancels never wait behind those.",
        ),
    ] = 40
    embedded_idle: Annotated[
        Duration,
        Field(
            description="How long the embedded Temporal and the sandbox go on without any command after one was "
            "killed: 1 s to 7 days."
        ),
    ] = timedelta(minutes=10)

    log_format: Annotated[
        LogFormat,
        Field(description="How the worker's log is written: as lines for people, or as one JSON object a line."),
    ] = LogFormat.TEXT

    @field_validator("embedded_idle")
    @classmethod
    def _ends(cls, value: timedelta) -> timedelta:
        if not timedelta(seconds=1) <= value <= timedelta(days=7):
            raise ValueError("must be between 1 second and 7 days")
        return value

    @field_validator("heartbeat")
    @classmethod
    def _bounded(cls, value: timedelta) -> timedelta:
        if not timedelta(seconds=2) <= value <= timedelta(minutes=5):
            raise ValueError("must be between 2 seconds and 5 minutes")
        return value


class Settings(_Section):
    """The whole configuration of a process. Frozen: what was read at start is what holds."""

    store: Annotated[StoreSettings, Field(description="Where inputs, plans and results are kept.")] = StoreSettings()
    worker: Annotated[WorkerSettings, Field(description="How the worker works.")] = WorkerSettings()
    gateway: Annotated[GatewaySettings, Field(description="The HTTP door.")] = GatewaySettings()
    providers: Annotated[
        dict[str, ProviderSettings], Field(default_factory=dict, description="Connections by their names.")
    ]
    source: Annotated[
        Path | None, Field(exclude=True, description="The file that was read; null for the defaults.")
    ] = None

    @classmethod
    def load(cls, path: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Self:
        """Read the configuration: `path`, or the file DURABATCH_CONFIG names, or ./durabatch.toml, or the defaults.

        Raises:
            ConfigurationError: the file is missing, is no TOML, or has a field that is unknown or of the wrong type. A
                key that is missing is not an error before its provider is used (see `provider`).
        """
        environ = os.environ if environ is None else environ
        named = path or environ.get(CONFIG_VARIABLE) or None
        file = Path(named or CONFIG_FILE).absolute()
        if named is None and not file.exists():
            return cls._build({}, None, environ)
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            origin = "" if path or not named else f" (named by {CONFIG_VARIABLE})"
            raise ConfigurationError(
                f"The configuration file {file}{origin} cannot be read: {error.strerror}."
            ) from None
        except UnicodeDecodeError:
            raise ConfigurationError(f"The configuration file {file} is no TOML: save it as UTF-8 text.") from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"The configuration file {file} is no TOML: {error}.") from None
        return cls._build(data, file, environ)

    @classmethod
    def _build(cls, data: dict[str, Any], file: Path | None, environ: Mapping[str, str]) -> Self:
        shown = str(file or CONFIG_FILE)
        written = data.get("providers", {})
        if not isinstance(written, dict):
            raise ConfigurationError(f"{shown}: providers must hold tables, such as [providers.openai].")
        providers: dict[str, Any] = {kind: {"kind": kind} for kind in KINDS} | written
        for name, fields in providers.items():
            where = f"providers.{name}"
            if not isinstance(fields, dict):
                raise ConfigurationError(f"{shown}: {where} must be a table: [{where}].")
            if "api_key" in fields:
                raise ConfigurationError(
                    f"{shown}: {where}.api_key cannot be given: a key does not belong in a file; put it in an "
                    f"environment variable and name that by {where}.api_key_env."
                )
            if "webhook_secret" in fields:
                raise ConfigurationError(
                    f"{shown}: {where}.webhook_secret cannot be given: put it in an environment variable and name that "
                    f"by {where}.webhook_secret_env."
                )
            for named in ("api_key_env", "webhook_secret_env"):
                if not _VARIABLE.fullmatch(str(fields.get(named, ""))):
                    # Not repeated here: the value may well be the key itself.
                    raise ConfigurationError(
                        f"{shown}: {where}.{named} must be the name of an environment variable (letters, digits, _)."
                    )
            if "name" in fields:
                raise ConfigurationError(f"{shown}: {where}.name cannot be given: {name!r} is its name already.")
        try:
            settings = cls.model_validate(
                {**data, "providers": {name: {"name": name, **fields} for name, fields in providers.items()}}
            )
        except ValidationError as error:
            raise ConfigurationError(f"{shown}: {_sentence(error)}") from None
        for route in settings.gateway.routes:
            # The stand-in provider is there only while it runs.
            if route.provider not in (*settings.providers, "sandbox"):
                raise ConfigurationError(
                    f"{shown}: gateway.routes sends {route.model!r} to {route.provider!r}, and there is no such "
                    f"provider{_suggestion(route.provider, settings.providers)}."
                )
        folder = file.parent if file else Path.cwd()
        return settings.model_copy(
            update={
                "source": file,
                "gateway": _with_secrets(settings.gateway, environ, shown),
                "store": settings.store.model_copy(update={"url": _absolute(settings.store.url, folder)}),
                "providers": {name: _with_key(p, environ) for name, p in settings.providers.items()},
            }
        )

    def provider(self, name: str) -> ProviderSettings:
        """Return a provider that is ready to be used, with its key.

        Raises:
            UnknownProvider: the configuration does not have it.
            MissingKey: its key is not in the environment.
        """
        found = self.providers.get(name)
        if found is None:
            known = ", ".join(sorted(self.providers))
            raise UnknownProvider(
                f"There is no provider {name!r} in {self.source or 'the default configuration'}"
                f"{_suggestion(name, self.providers)}; known are: {known}."
            )
        if found.api_key is not None:
            return found
        if _needs_name(found):
            raise MissingKey(
                f"The provider {name!r} has a base_url of its own but does not say which key goes there: name the "
                f'environment variable by providers.{name}.api_key_env, or set it to "" if the server takes no key.'
            )
        raise MissingKey(
            f"The provider {name!r} has no key: the environment variable {found.key_variable} is not set or empty."
        )

    def with_provider(self, provider: ProviderSettings) -> Self:
        """Return the same settings with one more provider, or another one of that name."""
        return self.model_copy(update={"providers": {**self.providers, provider.name: provider}})

    def redacted(self) -> dict[str, Any]:
        """Return what may be printed: everything but the keys, of which it says only whether they are there."""
        return {
            "source": str(self.source) if self.source else None,
            "store": self.store.model_dump(mode="json"),
            "worker": {
                "heartbeat": f"{self.worker.heartbeat.total_seconds():g}s",
                "task_queue": self.worker.task_queue,
                "max_concurrent_activities": self.worker.max_concurrent_activities,
                "embedded_idle": f"{self.worker.embedded_idle.total_seconds():g}s",
                "log_format": self.worker.log_format.value,
            },
            "gateway": self.gateway.model_dump(
                mode="json", exclude={"keys": {"__all__": {"sha256"}}, "webhooks": {"__all__": {"url"}}}
            ),
            "providers": {
                name: {**provider.redacted(), "key": "set" if provider.api_key else "missing"}
                for name, provider in sorted(self.providers.items())
            },
        }


def _with_secrets(gateway: GatewaySettings, environ: Mapping[str, str], shown: str) -> GatewaySettings:
    try:
        webhooks = tuple(webhook.with_secret(environ) for webhook in gateway.webhooks)
    except ValueError as error:
        raise ConfigurationError(f"{shown}: gateway.webhooks: {error}.") from None
    return gateway.model_copy(update={"webhooks": webhooks})


def _with_key(provider: ProviderSettings, environ: Mapping[str, str]) -> ProviderSettings:
    variable = provider.api_key_env
    if not variable and provider.url == KINDS[provider.kind].base_url:
        variable = provider.key_variable
    # A stray newline is the usual accident of `export KEY=$(cat file)`, and no header may hold one.
    key = environ.get(variable, "").strip() if variable else "" if _needs_name(provider) else NO_KEY
    secret = environ.get(provider.webhook_secret_env, "").strip() if provider.webhook_secret_env else ""
    return provider.model_copy(
        update={"api_key": SecretStr(key) if key else None, "webhook_secret": SecretStr(secret) if secret else None}
    )


def _needs_name(provider: ProviderSettings) -> bool:
    """Whether the configuration leaves open which key goes to an address that is not the kind's own."""
    own = provider.url == KINDS[provider.kind].base_url
    return not own and "api_key_env" not in provider.model_fields_set and not is_loopback(provider.url)


def _absolute(url: str, folder: Path) -> str:
    """Return a store's URL, with a folder made absolute, so that a later change of directory does not move it."""
    return url if "://" in url else str((folder / Path(url).expanduser()).resolve())


def _sentence(error: ValidationError) -> str:
    """Return the first problem in a sentence: the dotted field, what is wrong, what is allowed."""
    problems = error.errors(include_url=False, include_input=False)
    first = problems[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _fields(first["loc"][:-1])
        text = f"unknown field {where}{_suggestion(str(first['loc'][-1]), known)}; allowed are: {', '.join(known)}"
    else:
        text = f"{where}: {problem_words(first)}"
    more = len(problems) - 1
    return f"{text}." if not more else f"{text} (and {more} more problem{'s' if more > 1 else ''})."


def problem_words(problem: Mapping[str, Any]) -> str:
    """Return what pydantic disliked, in words for somebody who writes files, not Python."""
    if problem["type"].startswith("time_delta"):
        return 'must be a duration such as "90s", "10m" or "26h"'
    if problem["type"] == "missing":
        return "is missing"
    return str(problem["msg"]).removeprefix("Value error, ")


def _fields(place: tuple[int | str, ...]) -> list[str]:
    """Return the names that a table of the file may hold."""
    hidden = {"name", "api_key", "webhook_secret", "secret", "source"}
    tables: dict[str, type[BaseModel]] = {
        "store": StoreSettings,
        "worker": WorkerSettings,
        "gateway": GatewaySettings,
        "gateway.keys": GatewayKey,
        "gateway.routes": GatewayRoute,
        "gateway.webhooks": GatewayWebhook,
        "providers": ProviderSettings,
    }
    name = str(place[0]) if place else ""
    model = tables[name if name != "gateway" else ".".join(str(part) for part in place[:2])] if place else Settings
    return sorted(set(model.model_fields) - hidden)


def _suggestion(word: str, known: Mapping[str, Any] | list[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.65)
    return f" (did you mean {near[0]!r}?)" if near else ""
