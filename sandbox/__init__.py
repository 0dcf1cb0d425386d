"""A stand-in LLM provider: OpenAI's and Anthropic's wire protocols on loopback, with faults on demand.

    async with Sandbox(state=Path("sandbox-state")) as sandbox:
        await sandbox.fault("batches.create", "lost_answer", times=1)
        client = openai.AsyncOpenAI(base_url=f"{sandbox.url}/v1", api_key="any")

It imports nothing of Durabatch, so that it cannot agree with Durabatch by construction.
"""

from .client import SandboxAdmin
from .errors import SandboxError
from .server import Sandbox, serve

__all__ = ["Sandbox", "SandboxAdmin", "SandboxError", "serve"]
