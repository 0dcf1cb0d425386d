"""The served limits of live calls: rates, their headers and refusals, calls in flight, and what was measured."""

import asyncio
import time
from datetime import datetime

import anthropic
import openai
import pytest

from durabatch.sandbox import Sandbox
from durabatch.sandbox.limits import Meter, Rates
from durabatch.sandbox.openai.limits import duration
from durabatch.sandbox.settings import Settings

TEXT = "x" * 400  # 100 tokens


def chat(gpt, cap=None, text=TEXT, model="m"):
    more = {} if cap is None else {"max_completion_tokens": cap}
    return gpt.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": text}], **more
    )


def message(claude, cap=100, text=TEXT):
    return claude.messages.with_raw_response.create(
        model="m", max_tokens=cap, messages=[{"role": "user", "content": text}]
    )


async def refused(call):
    with pytest.raises((openai.RateLimitError, anthropic.RateLimitError)) as caught:
        await call
    return caught.value


async def test_good_answers_say_what_is_left_in_openais_headers(gpt, sandbox):
    assert not [name for name in (await chat(gpt)).headers if "ratelimit" in name]
    await sandbox.settings(rate_requests=10, rate_tokens=60_000, rate_window="sliding", rate_period_seconds=360)
    headers = (await chat(gpt, cap=900)).headers
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-limit-tokens"]) == ("10", "60000")
    assert (headers["x-ratelimit-remaining-requests"], headers["x-ratelimit-remaining-tokens"]) == ("9", "59000")
    assert headers["x-ratelimit-reset-requests"].startswith(("5m", "6m0s"))
    assert headers["x-ratelimit-reset-tokens"].startswith(("5m", "6m0s"))


async def test_a_request_too_many_is_refused_in_openais_words(gpt, sandbox):
    await sandbox.settings(rate_requests=2, rate_period_seconds=7200)
    await chat(gpt)
    await chat(gpt)
    error = await refused(chat(gpt))
    assert (error.status_code, error.code, error.type) == (429, "rate_limit_exceeded", "requests")
    assert "on requests per min (RPM): Limit 2, Used 2, Requested 1. Please try again in " in error.body["message"]
    headers = error.response.headers
    assert 3_000_000 < int(headers["retry-after-ms"]) <= 3_600_000
    assert int(headers["retry-after"]) == -(-int(headers["retry-after-ms"]) // 1000)
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"].startswith(("1h5", "2h0m0s"))


async def test_tokens_are_reserved_when_a_call_arrives(gpt, sandbox):
    await sandbox.settings(rate_tokens=1000, rate_period_seconds=36_000)
    await chat(gpt, cap=700)
    error = await refused(chat(gpt, cap=200))
    assert (error.type, error.response.headers["x-ratelimit-limit-tokens"]) == ("tokens", "1000")
    assert "on tokens per min (TPM): Limit 1000, Used 800, Requested 300." in error.body["message"]
    assert 3_500_000 < int(error.response.headers["retry-after-ms"]) <= 3_600_000
    await chat(gpt, cap=50)


async def test_tokens_may_count_as_what_an_answer_used(gpt, sandbox):
    await sandbox.settings(rate_tokens=100, rate_counts="used", rate_period_seconds=3600)
    headers = (await chat(gpt, cap=700)).headers  # it does not matter what it asks for
    assert headers["x-ratelimit-remaining-tokens"] == "0"
    assert (await refused(chat(gpt))).type == "tokens"


async def test_a_call_that_alone_exceeds_the_limit_can_never_be_made(gpt, sandbox):
    await sandbox.settings(rate_tokens=1000)
    error = await refused(chat(gpt, cap=901))
    assert "Request too large for m" in error.body["message"] and "Limit 1000, Requested 1001" in error.body["message"]
    assert "retry-after" not in error.response.headers
    await chat(gpt, cap=900)


@pytest.mark.parametrize("window", ["bucket", "sliding"])
async def test_who_waits_as_told_gets_through(gpt, sandbox, window):
    await sandbox.settings(rate_requests=4, rate_period_seconds=0.4, rate_window=window)
    sent = 0
    while sent < 10:
        try:
            await chat(gpt)
            sent += 1
        except openai.RateLimitError as error:
            await asyncio.sleep(int(error.response.headers["retry-after-ms"]) / 1000)
            await chat(gpt)
            sent += 1


async def test_no_sliding_period_ever_holds_more_than_the_limit_in_a_sliding_window(gpt, sandbox):
    await sandbox.settings(rate_requests=5, rate_tokens=440, rate_period_seconds=0.2, rate_window="sliding")
    while (await sandbox.live())["how"]["answered"] < 12:
        await asyncio.gather(*(chat(gpt, cap=10) for _ in range(8)), return_exceptions=True)
    (rates,) = await sandbox.rates()
    assert rates["requests"]["most"] <= 4 and rates["reserved_tokens"]["most"] <= 440
    summary = await sandbox.live()
    assert (summary["how"]["answered"], summary["calls"]) == (rates["taken"], rates["arrived"])


def test_a_bucket_lets_a_burst_pass_that_a_sliding_window_refuses():
    """As the real ones do: a client whose own bucket is full at the start sends too much in its first minute."""
    for window, wanted in (("bucket", "yyyynynyyny"), ("sliding", "yyyynnnnnny")):
        meter, rates = Meter(), Rates(Settings(rate_requests=4, rate_period_seconds=8, rate_window=window))
        times = [0, 0, 0, 0, 0, 2, 2, 4, 6, 7.9, 8]
        assert "".join("n" if meter.take(rates, now, 1, 0) else "y" for now in times) == wanted


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0s"),
        (0.0001, "1ms"),
        (0.012, "12ms"),
        (1, "1s"),
        (8.64, "8.64s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (86_399.5, "23h59m59.5s"),
    ],
)
def test_durations_are_told_in_openais_way(seconds, told):
    assert duration(seconds) == told


async def test_each_account_and_model_has_limits_of_its_own(gpt, sandbox):
    await sandbox.settings(rate_requests=1)
    other = gpt.with_options(api_key="sk-other")
    await chat(gpt)
    await chat(other)
    await chat(gpt, model="m2")
    await refused(chat(gpt))
    assert {(found["model"], found["taken"], found["arrived"]) for found in await sandbox.rates()} == {
        ("m", 1, 2),
        ("m", 1, 1),
        ("m2", 1, 1),
    }


async def test_limits_can_be_changed_at_any_time_and_what_was_used_stays_used(gpt, sandbox):
    await sandbox.settings(rate_requests=10, rate_period_seconds=3600)
    for _ in range(3):
        await chat(gpt)
    await sandbox.settings(rate_requests=3)
    await refused(chat(gpt))
    await sandbox.settings(rate_requests=None)
    assert "x-ratelimit-limit-requests" not in (await chat(gpt)).headers


async def test_a_refusal_by_tokens_counts_as_a_request(gpt, sandbox):
    await sandbox.settings(rate_requests=2, rate_tokens=10, rate_period_seconds=3600)
    assert [(await refused(chat(gpt))).type for _ in range(3)] == ["tokens", "tokens", "requests"]


async def test_good_messages_say_what_is_left_in_anthropics_headers(claude, sandbox):
    await sandbox.settings(rate_requests=50, rate_input_tokens=40_000, rate_output_tokens=8_000, rate_window="sliding")
    headers = (await message(claude, cap=800)).headers
    left = {
        name: (int(headers[f"anthropic-ratelimit-{name}-limit"]), int(headers[f"anthropic-ratelimit-{name}-remaining"]))
        for name in ("requests", "input-tokens", "output-tokens", "tokens")
    }
    assert left == {
        "requests": (50, 49),
        "input-tokens": (40_000, 39_900),
        "output-tokens": (8_000, 7_200),
        "tokens": (48_000, 47_100),
    }
    reset = datetime.fromisoformat(headers["anthropic-ratelimit-output-tokens-reset"])
    assert reset.timestamp() - time.time() <= 61


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rate_requests": 1}, "1 requests per minute"),
        ({"rate_tokens": 300}, "300 tokens per minute"),
        ({"rate_input_tokens": 150}, "150 input tokens per minute"),
        ({"rate_output_tokens": 150}, "150 output tokens per minute"),
    ],
)
async def test_a_message_too_many_is_refused_in_anthropics_words(claude, sandbox, settings, words):
    await sandbox.settings(**settings)
    await message(claude)
    error = await refused(message(claude))
    assert error.body["error"]["type"] == "rate_limit_error"
    assert words in error.body["error"]["message"]
    assert 0 < int(error.response.headers["retry-after"]) <= 60
    assert "retry-after-ms" not in error.response.headers


async def test_one_too_many_in_flight_is_refused(gpt, claude, sandbox):
    await sandbox.settings(max_in_flight=2)
    held = [asyncio.create_task(chat(gpt, text=f"[[sandbox:hang]] {n}")) for n in range(2)]
    while (await sandbox.live())["open"] < 2:
        await asyncio.sleep(0.01)
    error = await refused(chat(gpt))
    assert (error.code, error.response.headers.get("retry-after")) == ("rate_limit_exceeded", None)
    await message(claude.with_options(api_key="sk-other"))
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    while (await sandbox.live())["open"]:
        await asyncio.sleep(0.01)
    await chat(gpt)
    assert max(found["most_in_flight"] for found in await sandbox.rates()) == 2
    await sandbox.settings(max_in_flight=0)
    assert "concurrent connections" in (await refused(message(claude))).body["error"]["message"]


async def test_one_too_many_in_flight_may_wait_for_its_turn(gpt, sandbox):
    await sandbox.settings(max_in_flight=2, in_flight_waits=True, live_seconds=0.02)
    await asyncio.gather(*(chat(gpt, text=str(n)) for n in range(12)))
    (rates,) = await sandbox.rates()
    assert (rates["most_in_flight"], rates["in_flight"], rates["taken"]) == (2, 0, 12)
    assert (await sandbox.live())["most_open"] > 2


async def test_who_waits_for_a_place_in_flight_may_hang_up_and_a_higher_cap_lets_all_in(gpt, sandbox):
    await sandbox.settings(max_in_flight=0, in_flight_waits=True)
    waiting = [asyncio.create_task(chat(gpt, text=str(n))) for n in range(3)]
    while (await sandbox.live())["open"] < 3:
        await asyncio.sleep(0.01)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    while (await sandbox.live())["how"]["dropped"] < 1:
        await asyncio.sleep(0.01)
    await sandbox.settings(max_in_flight=1)
    await asyncio.gather(*waiting[1:])
    (rates,) = await sandbox.rates()
    assert (rates["in_flight"], rates["most_in_flight"]) == (0, 1)


async def test_the_measure_can_look_at_a_part_of_the_time(gpt, sandbox):
    await asyncio.gather(*(chat(gpt) for _ in range(3)))
    middle = (await sandbox.live())["now"]
    await chat(gpt)
    (late,) = await sandbox.rates(since=middle)
    (early,) = await sandbox.rates(until=middle, period=5)
    assert (late["taken"], early["taken"], early["period"]) == (1, 3, 5)
    assert early["requests"] == {"total": 3, "most": 3, "mean": 3}


async def test_settings_that_are_words_are_options_of_the_command(process):
    await process.stop()
    await process.start("--rate-window", "sliding", "--rate-counts", "used", "--in-flight-waits", "true")
    settings = await process.settings()
    assert (settings["rate_window"], settings["rate_counts"], settings["in_flight_waits"]) == ("sliding", "used", True)


async def test_limits_are_given_to_a_sandbox_in_this_process(tmp_path):
    async with (
        Sandbox(tmp_path, rate_requests=1) as sandbox,
        openai.AsyncOpenAI(base_url=f"{sandbox.url}/v1", api_key="k", max_retries=0, timeout=60) as gpt,
    ):
        await chat(gpt)
        await refused(chat(gpt))
