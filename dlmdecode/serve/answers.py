"""What clients are sent, in the shapes of OpenAI's."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dlmdecode.serve.choice import End, Line, View


@dataclass(frozen=True)
class Answers:
    """Makes the messages of one request."""

    model: str
    chat: bool
    prompt_tokens: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        prefix = "chatcmpl" if self.chat else "cmpl"
        frame = {"id": f"{prefix}-{self.id}", "object": kind, "created": self.created}
        return {**frame, "model": self.model, "choices": choices}

    def whole(self, ends: Sequence[End]) -> dict[str, Any]:
        """The answer to a request without a stream."""
        choices = [self.choice(index, end) for index, end in enumerate(ends)]
        kind = "chat.completion" if self.chat else "text_completion"
        return self.frame(kind, choices) | {"usage": self.usage(ends)}

    def choice(self, index: int, end: End) -> dict[str, Any]:
        message = {"role": "assistant", "content": end.text, "refusal": None}
        own = {"message": message} if self.chat else {"text": end.text}
        return {"index": index, **own, "logprobs": None, "finish_reason": end.reason}

    def usage(self, ends: Sequence[End]) -> dict[str, Any]:
        """Tokens of prompts and texts, and `nfe`, the forwards that the texts took part in."""
        new = sum(end.new_tokens for end in ends)
        total = self.prompt_tokens + new
        counts = {"prompt_tokens": self.prompt_tokens, "completion_tokens": new}
        return {**counts, "total_tokens": total, "nfe": sum(end.nfe for end in ends)}

    def chunk(self, index: int, text: str = "", reason: str | None = None) -> dict[str, Any]:
        """A part of a stream: text, or why a choice ended."""
        delta = {"delta": {"content": text} if text else {}}
        own = delta if self.chat else {"text": text}
        return self.part([{"index": index, **own, "logprobs": None, "finish_reason": reason}])

    def part(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return self.frame("chat.completion.chunk" if self.chat else "text_completion", choices)

    def opening(self, index: int) -> dict[str, Any]:
        """The first part of a choice of a chat."""
        delta = {"role": "assistant", "content": ""}
        return self.part(
            [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}]
        )

    def canvas(self, index: int, view: View) -> dict[str, Any]:
        """A part without choices, which clients of OpenAI's pass over: the canvas after a step."""
        return self.part([]) | {"canvas": {"index": index, **asdict(view)}}

    def traced(self, index: int, what: Line | End) -> dict[str, Any]:
        """A part without choices: a line of the trace."""
        if isinstance(what, End):
            what = Line(
                "end", {"texts": [what.text], "nfe": [what.nfe], "new_tokens": [what.new_tokens]}
            )
        return self.part([]) | {"trace": {"index": index, "type": what.type} | what.fields}


def event(value: Any) -> bytes:
    """A server-sent event."""
    text = json.dumps(value, ensure_ascii=False)
    return f"data: {text}\n\n".encode(errors="backslashreplace")
