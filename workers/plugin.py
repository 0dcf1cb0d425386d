"""The plugin: everything that a worker needs to run batches, for our own workers and for other people's."""

from __future__ import annotations

import dataclasses

from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter
from temporalio.converter import DataConverter, DefaultPayloadConverter
from temporalio.plugin import SimplePlugin
from temporalio.worker import WorkerConfig, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from ..activities.gateway.routing import Route
from ..activities.registry import all_activities
from ..activities.resources import Resources
from ..activities.store import Store
from ..contract import ConfigurationError
from ..workflows import WORKFLOWS
from .settings import Settings

#: Our workflows' own modules. Reloading them for each run took 60 ms of CPU, 12 s for a batch of 200 children, and
#: on a busy machine more than the two seconds that a workflow task has. They hold no state, and call nothing that
#: Temporal's sandbox would refuse: `tests/replay` loads them there, for each history.
WORKFLOW_MODULES = "durabatch.workflows"
#: Modules that workflows share with the worker instead of reloading them for each run.
PASSED_THROUGH = (
    WORKFLOW_MODULES,
    "durabatch.contract",  # models and constants only; reloading them would make classes that are not equal
    # Reached by `from durabatch import …` in a user's workflow file. They do I/O, and no workflow of ours imports them.
    "durabatch.activities",
    "durabatch.clients",
    "durabatch.workers",
    "annotated_types",
)


class BatchPlugin(SimplePlugin):
    """Adds Durabatch's workflows and activities to a worker.

    Pass it to `Client.connect(plugins=[…])`; every worker of that client then runs batches. Payloads become JSON that
    pydantic writes; a codec, external storage or failure converter of the client's own stays. Of a worker's activity
    slots (`max_concurrent_activities`; with a tuner, as many as the configuration has) long steps take half at most.

    Args:
        settings: the worker's configuration.
    """

    def __init__(self, settings: Settings) -> None:
        resources = Resources(
            Store.open(settings.store.url),
            settings.provider,
            settings.worker.heartbeat,
            settings.store.results_file_bytes,
            long_steps(settings.worker.max_concurrent_activities),
            routes=[Route(route.model, route.provider) for route in settings.gateway.routes],
            webhooks=[webhook.endpoint() for webhook in settings.gateway.webhooks],
        )
        self._long_steps = resources.long_steps

        with_key = sorted(name for name, provider in settings.providers.items() if provider.api_key)

        super().__init__(
            "durabatch.BatchPlugin",
            data_converter=_data_converter,
            workflows=list(WORKFLOWS),
            activities=all_activities(resources),
            workflow_runner=_workflow_runner,
            # One plugin may serve several workers at a time: the last of them closes the connections.
            run_context=lambda: resources.used(with_key),
        )

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """Add the workflows and activities; refuse a client that could not read their payloads."""
        if config["client"].data_converter.payload_converter_class is DefaultPayloadConverter:
            raise ConfigurationError(
                "The client's data converter cannot read Durabatch's payloads: pass BatchPlugin to Client.connect as "
                "plugins=[…], or data_converter=temporalio.contrib.pydantic.pydantic_data_converter."
            )
        config = super().configure_worker(config)
        if (slots := config.get("max_concurrent_activities")) is not None:
            self._long_steps.most = long_steps(slots)
        deployment = config.get("deployment_config")
        if deployment is not None and deployment.use_worker_versioning:
            config["workflows"] = [WORKFLOWS.get(one, one) for one in config.get("workflows") or ()]
        return config


def long_steps(slots: int) -> int:
    """Return how many of a worker's activity slots long steps may hold."""
    return max(1, slots // 2)


def _data_converter(converter: DataConverter | None) -> DataConverter:
    """Keep a user's codec, storage and failure converter, and have pydantic write the payloads."""
    if converter is None:
        return pydantic_data_converter
    if converter.payload_converter_class is DefaultPayloadConverter:
        return dataclasses.replace(converter, payload_converter_class=PydanticPayloadConverter)
    return converter


def _workflow_runner(runner: WorkflowRunner | None) -> WorkflowRunner:
    if runner is None:
        runner = SandboxedWorkflowRunner()
    if isinstance(runner, SandboxedWorkflowRunner):
        return dataclasses.replace(runner, restrictions=runner.restrictions.with_passthrough_modules(*PASSED_THROUGH))
    return runner
