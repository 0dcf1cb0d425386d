"""The ordinary endpoints, and directives in live calls."""

import openai
import pytest

TEXT = "What is the capital of France? Answer briefly."
MESSAGES = [{"role": "user", "content": TEXT}]


async def test_a_chat_is_answered_plausibly_and_always_the_same(gpt):
    first = await gpt.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    second = await gpt.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    other = await gpt.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    text = first.choices[0].message.content
    assert "capital of France" in text and first.choices[0].finish_reason == "stop"
    assert second.choices[0].message.content == text != other.choices[0].message.content
    assert first.usage.prompt_tokens == len(TEXT) // 4
    assert first.usage.completion_tokens == len(text) // 4
    assert first.usage.prompt_tokens_details.cached_tokens == 0


async def test_the_last_text_of_the_user_counts_in_all_its_parts(gpt):
    parts = [{"type": "text", "text": "Look at this"}, {"type": "text", "text": "[[sandbox:tokens=500]]"}]
    messages = [*MESSAGES, {"role": "assistant", "content": "Paris"}, {"role": "user", "content": parts}]
    done = await gpt.chat.completions.create(model="gpt-4o-mini", messages=messages)
    assert done.usage.completion_tokens == 500
    assert "Look at this" in done.choices[0].message.content
    assert "sandbox" not in done.choices[0].message.content


async def test_reasoning_models_reason(gpt):
    chat = await gpt.chat.completions.create(model="o4-mini", messages=MESSAGES)
    assert 0 < chat.usage.completion_tokens_details.reasoning_tokens < chat.usage.completion_tokens
    response = await gpt.responses.create(model="o4-mini", input=TEXT)
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.usage.output_tokens_details.reasoning_tokens > 0


async def test_an_answer_ends_at_the_given_number_of_tokens(gpt):
    chat = await gpt.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, max_completion_tokens=3)
    assert (chat.choices[0].finish_reason, chat.usage.completion_tokens) == ("length", 3)
    response = await gpt.responses.create(model="gpt-4o-mini", input=TEXT, max_output_tokens=3)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")


async def test_embeddings_have_the_dimensions_asked_for(gpt):
    model = "text-embedding-3-small"
    done = await gpt.embeddings.create(model=model, input=["one", "two", "one"], dimensions=16)
    one, two, again = (item.embedding for item in done.data)
    assert one == again != two and len(one) == 16
    floats = await gpt.embeddings.create(model=model, input="one", dimensions=16, encoding_format="float")
    assert floats.data[0].embedding == pytest.approx(one)


async def test_completions_moderations_and_models_answer(gpt):
    done = await gpt.completions.create(model="gpt-3.5-turbo-instruct", prompt=["a", "b"])
    assert len(done.choices) == 2
    judged = await gpt.moderations.create(input=["nice", "kind"])
    assert [result.flagged for result in judged.results] == [False, False]
    assert "gpt-4o-mini" in [model.id async for model in gpt.models.list()]
    assert (await gpt.models.retrieve("anything")).id == "anything"


async def test_unknown_models_routes_streams_and_bodies_are_refused(gpt, refusal):
    create = gpt.chat.completions.create
    error = await refusal(create(model="no-such-model", messages=MESSAGES))
    assert (error.status_code, error.code) == (404, "model_not_found")
    assert (await refusal(create(model="gpt-4o", messages=MESSAGES, stream=True))).status_code == 400
    assert (await refusal(create(model="gpt-4o", messages=[]))).code == "empty_array"
    assert (await refusal(gpt.responses.create(model="gpt-4o"))).param == "input"
    assert (await refusal(gpt.images.generate(prompt="x"))).status_code == 404
    assert (await refusal(gpt.post("/chat/completions", cast_to=object, content=b"{nope"))).status_code == 400


@pytest.mark.parametrize(
    ("marker", "status", "code"),
    [
        ("rate_limited", 429, "rate_limit_exceeded"),
        ("server_error", 500, None),
        ("timeout", 504, "request_timeout"),
        ("invalid_request", 400, "invalid_value"),
        ("context_length", 400, "context_length_exceeded"),
        ("overloaded", 503, "overloaded"),
    ],
)
async def test_a_marker_makes_a_live_call_fail_for_the_first_few_times(gpt, refusal, marker, status, code):
    messages = [{"role": "user", "content": f"Hi [[sandbox:{marker} times=2]]"}]
    for _ in range(2):
        error = await refusal(gpt.chat.completions.create(model="gpt-4o-mini", messages=messages))
        assert (error.status_code, error.code) == (status, code)
    assert (await gpt.chat.completions.create(model="gpt-4o-mini", messages=messages)).usage.prompt_tokens


async def test_markers_make_live_answers_empty_filtered_or_unreadable(gpt):
    def ask(marker):
        messages = [{"role": "user", "content": f"Hi [[sandbox:{marker}]]"}]
        return gpt.chat.completions.create(model="gpt-4o-mini", messages=messages)

    assert (await ask("empty")).choices[0].message.content == ""
    assert (await ask("content_filtered")).choices[0].finish_reason == "content_filter"
    with pytest.raises(ValueError):
        await ask("malformed")
    filtered = await gpt.responses.create(model="gpt-4o", input="[[sandbox:content_filtered]]")
    assert filtered.incomplete_details.reason == "content_filter"


async def test_a_marker_makes_a_live_call_slow(gpt):
    messages = [{"role": "user", "content": "Hi [[sandbox:slow seconds=5]]"}]
    with pytest.raises(openai.APITimeoutError):
        await gpt.chat.completions.create(model="gpt-4o-mini", messages=messages, timeout=0.5)


async def test_live_calls_are_billed_in_the_ledger(gpt, sandbox):
    for text in ("one", "one", "two"):
        await gpt.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": text}])
    live = (await sandbox.books())["live"]
    assert live["billed"]["chat"] == 3 and live["billed"]["output_tokens"] > 0
    assert (live["distinct"], live["most_times"], sorted(live["rows"].values())) == (2, 2, [1, 2])
