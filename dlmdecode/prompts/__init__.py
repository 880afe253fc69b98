"""Prompts as token ids: texts, chat messages, ids in all their forms."""

from dlmdecode.prompts.chat import is_sequence, text_ids
from dlmdecode.prompts.encode import beginning, check_context, encode_prompts, from_array

__all__ = ["beginning", "check_context", "encode_prompts", "from_array", "is_sequence", "text_ids"]
