"""Prompts as token ids: texts, chat messages, ids in all their forms."""

from dlmdecode.prompts.encode import check_context, encode_prompts

__all__ = ["check_context", "encode_prompts"]
