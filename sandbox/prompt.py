"""What a request says to the model, whichever endpoint it is for."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from .errors import Refusal, missing, wrong_type

#: The JSON object in a request.
Body = Mapping[str, Any]

#: A model whose name begins so does not exist.
NO_SUCH_MODEL = "no-such-"


class Prompt:
    """The texts of one request; the last one is the last of the user's."""

    __slots__ = ("_digest", "model", "texts")

    def __init__(self, model: str, texts: list[str]) -> None:
        self.model = model
        self.texts = texts
        self._digest = ""

    @property
    def text(self) -> str:
        """The user's last text: what the reply is about, and where directives are read."""
        return self.texts[-1]

    @property
    def tokens(self) -> int:
        """Input tokens, by the rule of thumb of four characters to a token."""
        return max(1, sum(map(len, self.texts)) // 4)

    @property
    def digest(self) -> str:
        """24 hex digits that are the same for the same model and texts."""
        if not self._digest:
            said = "\0".join((self.model, *self.texts)).encode("utf-8", "surrogatepass")
            self._digest = blake2b(said, digest_size=12).hexdigest()
        return self._digest


def conversation(body: Body, field: str) -> list[str]:
    """The texts of a list of messages; the last one is the last of the user's."""
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


def strings(body: Body, field: str) -> list[str]:
    """The texts of a field that holds one, or a list of them."""
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


def check_model(model: str) -> None:
    """Check that a model exists: any does, except those named `no-such-…`.

    Raises:
        Refusal: 404.
    """
    if model.startswith(NO_SUCH_MODEL):
        message = f"The model `{model}` does not exist or you do not have access to it."
        raise Refusal(404, message, code="model_not_found")
