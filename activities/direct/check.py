"""Check calls: short calls of our own that show whether a route and model answer at all, where rows fail.

A list of the models would cost nothing, but is answered by servers whose models are not. So the check asks what rows
ask, of the same model, and with the same limit of output; it costs a few tokens, and only where the rows fail.
"""

from __future__ import annotations

import asyncio
import secrets

from ..estimate import bounded
from ..providers import ProviderSettings
from ..providers.base import LiveCalls
from .answer import Answer, NoAnswer, TooLong
from .calls import Calls
from .judgement import Checked
from .lane import Lane
from .verdict import Verdict, error_of, verdict

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

    async def ask(self, body: bytes) -> Checked:
        """Make one, as soon as the rate allows it.

        Args:
            body: of a row that failed.
        """
        asked = self._live.check(self._endpoint, body)
        timeout = self._settings.timeout.total_seconds()
        ticket = await self._lane.take(_TOKENS + bounded(self._live.output_cap(asked) or 0))
        loop = asyncio.get_running_loop()
        began = loop.time()
        answer: Answer | None = None
        reason = ""
        try:
            async with asyncio.timeout(timeout):
                answer = await self._calls.post(
                    self._url, {"x-client-request-id": f"check-{secrets.token_hex(8)}"}, asked
                )
        except TimeoutError:
            reason = f"Provider {self._settings.name} exceeded its timeout of {timeout:g} s."
        except NoAnswer as error:
            reason = error.reason
        except TooLong:
            return Checked()
        finally:
            if answer is None:
                self._lane.done(ticket, None, None)
        if answer is None:
            return Checked(away=True, reason=reason)
        news = self._live.limit_news(answer.status, answer.headers)
        found = verdict(answer)
        if found is Verdict.REJECTED:
            self._lane.rejected(ticket, news)
        else:
            used = self._live.used_tokens(answer.body)
            self._lane.done(ticket, used if used is not None and used == bounded(used) else None, news)
        if found is Verdict.ANSWERED and answer.status < 300:
            return Checked(well=True, soon=loop.time() - began < timeout / 2)
        said = error_of(self._settings, answer)
        if found is Verdict.HOPELESS:
            return Checked(hopeless=said)
        return Checked(away=found is not Verdict.ANSWERED, reason=said.message, wait=news.retry_after)
