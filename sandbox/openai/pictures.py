"""OpenAI's images and videos, as far as batches know them: small answers of the right shape."""

from __future__ import annotations

from typing import Any

from ..prompt import Body, strings
from ..replies import Call, Reply

#: A PNG of one pixel.
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_IMAGE_TOKENS = 272  # of a small picture of low quality


def texts(body: Body) -> list[str]:
    """The prompt."""
    return strings(body, "prompt")


def image(call: Call) -> Reply:
    """One pixel for each picture."""
    given = call.body.get("n")
    pictures = given if isinstance(given, int) and given > 0 else 1
    input_tokens, output_tokens = call.prompt.tokens, pictures * _IMAGE_TOKENS
    answer: dict[str, Any] = {
        "created": call.created,
        "data": [{"b64_json": _PIXEL}] * pictures,
        "usage": {
            "input_tokens": input_tokens,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": input_tokens},
            "output_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
        },
    }
    return Reply(answer, input_tokens, output_tokens)


def video(call: Call) -> Reply:
    """The job of a video that is done."""
    answer = {
        "id": f"video_{call.prompt.digest}",
        "object": "video",
        "model": call.prompt.model,
        "status": "completed",
        "progress": 100,
        "created_at": call.created,
        "completed_at": call.created,
        "expires_at": None,
        "error": None,
        "prompt": call.prompt.text,
        "remixed_from_video_id": None,
        "seconds": str(call.body.get("seconds") or "4"),
        "size": call.body.get("size") or "720x1280",
    }
    return Reply(answer, call.prompt.tokens)
