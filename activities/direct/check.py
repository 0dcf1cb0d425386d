"""Check calls: short calls of our own that show whether a route and model answer at all, where rows fail.

A list of the models would cost nothing, but is answered by servers whose models are not. So the check asks what rows
ask, of the same model, with the same limit of output up to a bound; it costs a few tokens, and only where rows fail.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from ..estimate import bounded
from ..providers import ProviderSettings
from ..providers.base import LiveCalls
from .answer import Answer, NoAnswer, TooLong
from .calls import Calls
from .judgement import Checked
from .lane import Lane, settle
from .memory import Share
from .verdict import Verdict, error_of

#: Tokens of its input, which is a short sentence, at most.
_TOKENS = 32


class Checks:
    """Makes the check calls of one run.

    Args:
        calls: the connections.
        live: what calls of the provider look like.
        url: where the rows are posted.
        endpoint: the same, as the spec names it.
        settings: the provider's.
        lane: what the run may send.
    """

    def __init__(
        self, calls: Calls, live: LiveCalls, url: str, endpoint: str, settings: ProviderSettings, lane: Lane
    ) -> None:
        self._calls = calls
        self._live = live
        self._url = url
        self._endpoint = endpoint
        self._settings = settings
        self._lane = lane
        self.asking = False  #: Whether one is under way, or waits for the rate.
        self.sent = False  #: Whether one is under way.

    async def ask(self, body: bytes, wanted: Callable[[], bool]) -> Checked | None:
        """Make one, as soon as the rate allows it.

        Args:
            body: of a row that failed.
            wanted: whether it is still to be sent by then.

        Returns:
            What came of it; None: it was not sent.
        """
        self.asking = True
        try:
            return await self._ask(body, wanted)
        finally:
            self.asking = self.sent = False

    async def _ask(self, body: bytes, wanted: Callable[[], bool]) -> Checked | None:
        if not self._settings.check_calls:
            return Checked()
        asked = self._live.check(self._endpoint, body)
        timeout = self._settings.timeout.total_seconds()
        ticket = await self._lane.take(_TOKENS + bounded(self._live.output_cap(asked) or 0))
        if not wanted():
            self._lane.done(ticket, 0, None)
            return None
        self.sent = True
        loop = asyncio.get_running_loop()
        began = loop.time()
        answer: Answer | None = None
        reason = ""
        share = Share(self._calls.memory)
        try:
            async with asyncio.timeout(timeout):
                answer = await self._calls.post(
                    self._url, {"x-client-request-id": f"check-{secrets.token_hex(8)}"}, asked, share
                )
        except TimeoutError:
            reason = f"Provider {self._settings.name} exceeded its timeout of {timeout:g} s."
        except NoAnswer as error:
            reason = error.reason
        except TooLong:
            return Checked()
        finally:
            share.free()
            if answer is None:
                self._lane.done(ticket, None, None)
        if answer is None:
            return Checked(away=True, reason=reason)
        found, news = settle(self._lane, ticket, self._live, answer)
        if found is Verdict.ANSWERED and answer.status < 300:
            return Checked(well=True, soon=loop.time() - began < timeout / 2)
        said = error_of(self._settings, answer)
        if found is Verdict.HOPELESS:
            return Checked(hopeless=said)
        return Checked(away=found is not Verdict.ANSWERED, reason=said.message, wait=news.retry_after)
