"""The page at `/`: the viewer of traces, fed by the server while it decodes."""

from __future__ import annotations

from html import escape
from importlib.resources import files

from dlmdecode.registry import list_samplers
from dlmdecode.serve.reading import Served
from dlmdecode.trace.view import document, fill

LENGTH = 64  # positions, where the server says nothing


def page(served: Served) -> tuple[str, dict[str, str]]:
    """The page and its headers: it runs its own script and talks to its own server only."""
    style, script, form = (
        (files("dlmdecode.serve") / f"page.{kind}").read_text("utf-8")
        for kind in ("css", "js", "html")
    )
    most = served.limits.tokens
    length = served.options.get("max_new_tokens", min(LENGTH, most))
    filled = {"sampler": served.sampler, "most": str(most), "length": str(length)}
    filled = {name: escape(value) for name, value in filled.items()}
    filled["samplers"] = "".join(f'<option value="{escape(name)}">' for name in list_samplers())
    form = fill(form, filled)
    html, policy = document(
        "dlmdecode", (), form=form, style=style, script=script, connects="'self'"
    )
    headers = {
        "Content-Security-Policy": f"{policy}; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    return html, headers
