"""What a request says to the model, whichever endpoint it is for."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from .errors import Refusal, missing, wrong_type

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
COMPLETIONS = "/v1/completions"
MODERATIONS = "/v1/moderations"
MESSAGES = "/v1/messages"

#: A model whose name begins so does not exist.
NO_SUCH_MODEL = "no-such-"
_DEFAULT_MODERATION_MODEL = "omni-moderation-latest"


class Prompt(NamedTuple):
    """The texts of one request; the last one is the last of the user's."""

    model: str
    texts: list[str]

    @property
    def text(self) -> str:
        """The last text of the user's: what the reply is about, and where markers are read."""
        return self.texts[-1]

    @property
    def tokens(self) -> int:
        """Input tokens, by the rule of thumb of four characters to a token."""
        return max(1, sum(map(len, self.texts)) // 4)

    @property
    def digest(self) -> str:
        """24 hex digits that are the same for the same model and texts."""
        digest = blake2b(self.model.encode(), digest_size=12)
        for text in self.texts:
            digest.update(b"\0")
            digest.update(text.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def read_prompt(endpoint: str, body: Mapping[str, Any]) -> Prompt:
    """The model and the texts of a request body.

    Raises:
        Refusal: The body lacks something that the endpoint needs, in OpenAI's words.
    """
    model = body.get("model")
    if model is None and endpoint == MODERATIONS:
        model = _DEFAULT_MODERATION_MODEL
    if model is None:
        raise missing("model")
    if not isinstance(model, str) or not model:
        raise wrong_type("model", "a string", model)
    return Prompt(model, _TEXTS[endpoint](body))


def _chat_texts(body: Mapping[str, Any]) -> list[str]:
    return _conversation(body, "messages")


def _messages_texts(body: Mapping[str, Any]) -> list[str]:
    texts = _conversation(body, "messages")
    system = content_text(body.get("system"))
    return [system, *texts] if system else texts


def _responses_texts(body: Mapping[str, Any]) -> list[str]:
    given = body.get("input")
    texts = [given] if isinstance(given, str) else _conversation(body, "input")
    instructions = body.get("instructions")
    return [instructions, *texts] if isinstance(instructions, str) and instructions else texts


def _conversation(body: Mapping[str, Any], field: str) -> list[str]:
    messages = body.get(field)
    if messages is None:
        raise missing(field)
    if not isinstance(messages, list):
        raise wrong_type(field, "an array of objects", messages)
    if not messages:
        raise Refusal(
            400,
            f"Invalid '{field}': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            code="empty_array",
            param=field,
        )
    texts = []
    last = ""
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise wrong_type(f"{field}[{index}]", "an object", message)
        text = content_text(message.get("content"))
        if message.get("role") == "user":
            last, text = text, last
        texts.append(text)
    texts.append(last)
    return texts


def _prompt_texts(body: Mapping[str, Any]) -> list[str]:
    return _strings(body, "prompt")


def _input_texts(body: Mapping[str, Any]) -> list[str]:
    return _strings(body, "input")


def _strings(body: Mapping[str, Any], field: str) -> list[str]:
    given = body.get(field)
    if given is None:
        raise missing(field)
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise wrong_type(field, "a string or an array of strings", given)
    if all(isinstance(item, int) for item in given):
        return [" ".join(map(str, given))]  # one text, already as tokens
    return [_item_text(item) for item in given]


def _item_text(item: object) -> str:
    if isinstance(item, list):
        return " ".join(map(str, item))
    if isinstance(item, dict):
        return content_text([item])
    return str(item)


def content_text(content: object) -> str:
    """The text of a message's content: a string, or a list of parts of which the textual ones count."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(part for part in parts if isinstance(part, str))


_TEXTS = {
    CHAT: _chat_texts,
    RESPONSES: _responses_texts,
    EMBEDDINGS: _input_texts,
    COMPLETIONS: _prompt_texts,
    MODERATIONS: _input_texts,
    MESSAGES: _messages_texts,
}
