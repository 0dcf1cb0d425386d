"""The parameters that the sandbox knows are those of the providers' own clients."""

import anthropic.types.beta.message_create_params as beta
import anthropic.types.message_create_params as messages
import openai.types.chat.completion_create_params as chat
import openai.types.completion_create_params as completions
import openai.types.embedding_create_params as embeddings
import openai.types.moderation_create_params as moderations
import openai.types.responses.response_create_params as responses
import pytest

from durabatch.sandbox.anthropic.requests import PARAMETERS
from durabatch.sandbox.openai import requests


@pytest.mark.parametrize(
    ("form", "known"),
    [
        (chat.CompletionCreateParamsBase, requests.CHAT_PARAMETERS),
        (responses.ResponseCreateParamsBase, requests.RESPONSES_PARAMETERS),
        (completions.CompletionCreateParamsBase, requests.COMPLETIONS_PARAMETERS),
        (embeddings.EmbeddingCreateParams, requests.EMBEDDINGS_PARAMETERS),
        (moderations.ModerationCreateParams, requests.MODERATIONS_PARAMETERS),
        (messages.MessageCreateParamsBase, PARAMETERS),
        (beta.MessageCreateParamsBase, PARAMETERS),
    ],
)
def test_no_parameter_of_a_client_is_refused(form, known):
    assert form.__required_keys__ | form.__optional_keys__ <= known | {"betas"}
