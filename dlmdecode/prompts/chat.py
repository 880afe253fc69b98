"""Text and chat messages as token ids: what a user spells out is text, control tokens are none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dlmdecode.checks import closest, require
from dlmdecode.prompts.chat_template import render

ROLES = ("system", "user", "assistant", "tool", "developer")


def is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def text_ids(text: str, model: Any, begins: bool = True) -> list[int]:
    """Ids of a text, which may come from a chat template: of its control tokens only the mask,
    which no tokenizer adds by itself, is read as text. One that does not begin a row gets no
    tokens that the tokenizer would put around it."""
    tokenizer, mask_id = model.tokenizer, model.mask_id
    ids = tokenizer(check_text(text), add_special_tokens=begins)["input_ids"]
    if mask_id not in ids:
        return ids
    spelled = plain_ids(tokenizer.convert_ids_to_tokens(mask_id), tokenizer)
    return [one for id in ids for one in (spelled if id == mask_id else [id])]


def check_text(text: str) -> str:
    """`text`, if it can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        fix = f"the character at {error.start} is half of a surrogate pair: give whole ones"
        raise ValueError(f"prompt={text[:80]!r}: {fix}") from error
    return text


def plain_ids(spelled: str, tokenizer: Any) -> list[int]:
    """Ids of a control token's name as text."""
    ids = tokenizer(spelled, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    fix = "this tokenizer has no other way to write it: remove it"
    require(tokenizer.convert_tokens_to_ids(spelled) not in ids, "prompt", spelled, fix)
    return ids


def chat_ids(messages: Sequence[Any], tokenizer: Any) -> list[int]:
    """Ids of messages in the chat template.

    A character that stands in no message marks what the messages spell out, until the template is
    filled in and the control tokens are those of the template alone.
    """
    told = [checked_message(message, i, tokenizer) for i, message in enumerate(messages)]
    control = control_tokens(tokenizer)
    pattern = re.compile("|".join(map(re.escape, control)) or r"(?!)")
    said = json.dumps(told, ensure_ascii=False, default=str)
    mark = next(chr(c) for c in range(0xE000, 0xF900) if chr(c) not in said)

    def marked(text: str) -> str:
        return pattern.sub(lambda found: f"{mark}{control.index(found[0])}{mark}", text)

    filled = render(tokenizer, within(told, marked))
    ids: list[int] = []
    for i, piece in enumerate(re.split(f"{mark}([0-9]+){mark}", filled)):
        if i % 2:
            ids += plain_ids(control[int(piece)], tokenizer)
        elif piece:
            ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
    return ids


def control_tokens(tokenizer: Any) -> list[str]:
    """How the tokenizer's control tokens are spelled, the longest first."""
    added = tokenizer.added_tokens_decoder.values()
    return sorted({token.content for token in added if token.special}, key=len, reverse=True)


def within(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: within(one, change) for key, one in value.items()}
    return [within(one, change) for one in value] if is_sequence(value) else value


def checked_message(message: Any, index: int, tokenizer: Any) -> dict[str, Any]:
    """A message whose content is one text."""
    name = f"prompt, message {index}"
    require(isinstance(message, Mapping), name, message, "give {'role': …, 'content': …}")
    role, content = message.get("role"), message.get("content")
    template = str(getattr(tokenizer, "chat_template", ""))
    quoted = (f"'{role}'", f'"{role}"')  # a role that only this template has
    known = role in ROLES or any(one in template for one in quoted)
    near = closest(role, ROLES) if isinstance(role, str) else ""
    require(known, f"{name}: role", role, f"give one of {', '.join(ROLES)}{near}")
    if is_sequence(content):
        content = "\n".join(text_of(part, name) for part in content)
    require(isinstance(content, str), f"{name}: content", content, "give text")
    return {**message, "content": check_text(content)}


def text_of(part: Any, name: str) -> str:
    """The text of one part of a message's content."""
    text = part
    if isinstance(part, Mapping) and part.get("type", "text") == "text":
        text = part.get("text")
    require(isinstance(text, str), f"{name}: content part", part, "text is all that is read")
    return text
