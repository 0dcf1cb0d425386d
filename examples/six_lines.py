"""The Python client in six lines.

It needs a Temporal and a worker: run `durabatch dev --sandbox` in the same folder, or set TEMPORAL_ADDRESS. The same
call again finds the same batch.
"""

import asyncio

from durabatch import BatchClient

PROMPTS = {"capital": "What is the capital of France?", "colour": "What colour is the sky?"}


async def main() -> None:
    async with BatchClient.connect() as client:
        outcome = await client.invoke(PROMPTS, provider="sandbox", model="gpt-4o-mini")
        async for row in outcome:
            print(row.custom_id, row.status, row.text)


asyncio.run(main())
