"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the PATH: apt install chromium"
)
SWITCHES = (
    "--headless",
    "--no-sandbox",  # as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)


class Browser:
    """One page. `run` evaluates JavaScript in it; `errors` holds what went wrong there."""

    def __init__(self) -> None:
        from websockets.sync.client import connect

        self.count, self.errors, self.open_things = 0, list[str](), ExitStack()
        enter = self.open_things.enter_context
        folder = enter(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        command = [str(CHROMIUM), *SWITCHES, f"--user-data-dir={folder}", "about:blank"]
        how: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
        process = enter(subprocess.Popen(command, text=True, **how))
        self.open_things.callback(process.kill)
        assert process.stderr is not None
        found = (re.search(r"ws://\S+", line) for line in process.stderr)
        address = next(match.group() for match in found if match)
        self.socket = enter(connect(address, max_size=None, proxy=None))
        (page,) = (
            one for one in self.send("Target.getTargets")["targetInfos"] if one["type"] == "page"
        )
        attach = {"targetId": page["targetId"], "flatten": True}
        self.session = self.send("Target.attachToTarget", **attach)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer."""
        self.count += 1
        message: dict[str, Any] = {"id": self.count, "method": method, "params": params}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            self.note(answer)
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]

    def note(self, event: dict[str, Any]) -> None:
        """Keep an event that says that something went wrong."""
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(event["params"]["exceptionDetails"]))
        if event.get("method") == "Log.entryAdded":
            self.errors.append(event["params"]["entry"]["text"])

    def open(self, address: str) -> None:
        self.errors.clear()
        self.send("Page.navigate", url=address)
        ready = "new Promise(go => document.readyState == 'complete' ? go() : onload = go)"
        self.run(ready)

    def run(self, script: str) -> Any:
        how = {"returnByValue": True, "awaitPromise": True}
        result = self.send("Runtime.evaluate", expression=script, **how)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key: its name, as `event.key` has it. 2 is with Ctrl."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, modifiers=modifiers)

    def hover(self, selector: str) -> None:
        """Move the mouse over the first element of a selector."""
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y = self.run(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})")
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        self.open_things.close()
