"""Runs on disk: written step by step, read back, shown in a page and in plots."""

from dlmdecode.trace.file import Run, read

__all__ = ["Run", "read"]
