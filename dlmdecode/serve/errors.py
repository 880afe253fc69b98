"""Errors as OpenAI's clients read them."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """A request that is answered with an error.

    `status` is that of HTTP, `param` the field that is wrong, `kind` and `code` what OpenAI's
    clients tell errors by.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
    ):
        super().__init__(message)
        self.status, self.param, self.kind, self.code = status, param, kind, code

    def body(self) -> dict[str, Any]:
        message = str(self).encode(errors="backslashreplace").decode()
        return {
            "error": {"message": message, "type": self.kind, "param": self.param, "code": self.code}
        }


def overloaded(message: str) -> Refused:
    return Refused(message, status=429, kind="rate_limit_error", code="server_busy")


def failed(error: BaseException) -> Refused:
    """What ended a text that was accepted."""
    return Refused(f"{type(error).__name__}: {error}", status=500, kind="server_error")
