"""Prompts as token ids: texts, chat messages, ids in all their forms."""

from dlmdecode.prompts.encode import encode_prompts

__all__ = ["encode_prompts"]
