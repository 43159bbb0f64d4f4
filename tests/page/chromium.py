"""A browser for tests: Debian's chromium without a window, driven through two pipes with nothing but the standard library.

Each `Page` is a tab with its own log of requests and of what the browser complained about. Files are given to a page as a person gives
them: dropped on it, or chosen in its file dialogue.

Source: Chrome DevTools Protocol, over `--remote-debugging-pipe`: JSON messages that end in a NUL byte, in on descriptor 3, out on 4.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BINARY = "/usr/bin/chromium"
_ANSWER_S = 60.0
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage",
    "--no-default-browser-check", "--mute-audio", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip


class BrowserError(Exception):
    """The browser did not do what was asked, and what it said."""


def missing() -> str | None:
    """What to install when there is no browser, else None."""
    if Path(BINARY).exists():
        return None
    return (
        f"the tests of the verify page need {BINARY}: run `apt-get install --no-install-recommends chromium` as root (`make test` does it "
        "when it may), then run them again"
    )


class Chromium:
    """A browser process with an empty profile that is deleted at the end."""

    def __init__(self) -> None:
        self._profile = tempfile.mkdtemp(prefix="verify-page-")
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        command = [BINARY, *_FLAGS, f"--user-data-dir={self._profile}", "about:blank"]
        # The shell moves the two pipe ends to the descriptors that the browser expects; Python cannot choose numbers for a child. It is
        # bash because dash knows only descriptors of one digit.
        script = f'exec 3<&{to_read} 4>&{to_write}; exec "$@"'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", script, "chromium", *command],
            pass_fds=(to_read, to_write), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self._profile},
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        self._number = 0
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and delete its profile."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        shutil.rmtree(self._profile, ignore_errors=True)

    def page(self, *, width: int = 1280, height: int = 800, dark: bool = False) -> Page:
        """A new tab of that size in CSS pixels."""
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = Page(self, session, target)
        self._pages[session] = page
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            page.send(f"{domain}.enable")
        page.resize(width, height)
        page.send("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})
        return page

    def send(self, method: str, params: dict[str, Any] | None = None, session: str | None = None) -> dict[str, Any]:
        """Ask the browser for something and wait for its answer.

        Raises:
            BrowserError: it refused, or did not answer.
        """
        self._number += 1
        number = self._number
        answer = self._answers[number] = queue.Queue()
        message: dict[str, Any] = {"id": number, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        try:
            while data:
                data = data[os.write(self._to, data) :]
            found = answer.get(timeout=_ANSWER_S)
        except queue.Empty as error:
            raise BrowserError(f"{method} was not answered within {_ANSWER_S:.0f} s") from error
        except BrokenPipeError as error:
            raise BrowserError(f"{BINARY} has ended, exit code {self._process.poll()}") from error
        finally:
            del self._answers[number]
        if "error" in found:
            raise BrowserError(f"{method}: {found['error'].get('message')}")
        result: dict[str, Any] = found["result"]
        return result

    def _listen(self) -> None:
        with os.fdopen(self._from, "rb", buffering=0) as pipe:
            rest = b""
            while piece := pipe.read(1 << 20):
                *messages, rest = (rest + piece).split(b"\0")
                for data in messages:
                    self._deliver(json.loads(data))

    def _deliver(self, message: dict[str, Any]) -> None:
        waiting = self._answers.get(message.get("id", -1))
        page = self._pages.get(message.get("sessionId", ""))
        if waiting is not None:
            waiting.put(message)
        elif page is not None and "method" in message:
            page.notice(message["method"], message["params"])


class Page:
    """A tab.

    Attributes:
        requests: addresses that it asked for, in order.
        complaints: exceptions, and what the browser logged as an error (a refused request, a violated policy).
    """

    def __init__(self, browser: Chromium, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._loaded = threading.Event()

    def notice(self, method: str, params: dict[str, Any]) -> None:
        """Called by the browser with whatever happens."""
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
        elif method == "Page.loadEventFired":
            self._loaded.set()

    def send(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask this tab for something."""
        return self._browser.send(method, params, self._session)

    def close(self) -> None:
        """Close the tab."""
        self._browser.send("Target.closeTarget", {"targetId": self._target})

    def resize(self, width: int, height: int) -> None:
        """CSS pixels; narrow ones are a telephone's, with a finger for a mouse."""
        phone = width < 600
        self.send("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone})

    def open(self, url: str) -> None:
        """Go to an address and wait until it is loaded."""
        self._loaded.clear()
        found = self.send("Page.navigate", {"url": url})
        if "errorText" in found:
            raise BrowserError(f"{url}: {found['errorText']}")
        if "loaderId" in found and not self._loaded.wait(_ANSWER_S):  # without one, only the fragment changed
            raise BrowserError(f"{url} did not load")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise, as JSON.

        Raises:
            BrowserError: it threw.
        """
        found = self.send("Runtime.evaluate", {"expression": expression, "awaitPromise": True, "returnByValue": True})
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description") or details["text"])
        return found["result"].get("value")

    def call(self, function: str, *values: Any) -> Any:
        """The value of a JavaScript function for values that are given as JSON."""
        return self.evaluate(f"({function})({', '.join(json.dumps(value) for value in values)})")

    def wait(self, condition: str, timeout_s: float = 60.0) -> None:
        """Until an expression is true.

        Raises:
            BrowserError: it did not become so.
        """
        end = time.monotonic() + timeout_s
        while not self.evaluate(f"Boolean({condition})"):
            if time.monotonic() > end:
                shown = self.evaluate("document.body.innerText")[:2000]
                raise BrowserError(f"still not true after {timeout_s:.0f} s: {condition}\n{shown}")
            time.sleep(0.02)

    def drop(self, files: Sequence[Path], selector: str = "body") -> None:
        """Drop files or folders on an element, as a mouse does."""
        box = self.call("selector => document.querySelector(selector).getBoundingClientRect().toJSON()", selector)
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", {"type": kind, "x": box["x"] + box["width"] / 2, "y": box["y"] + 20, "data": data})

    def choose(self, files: Sequence[Path], selector: str) -> None:
        """Give files to a file input, as its dialogue does."""
        found = self.send("Runtime.evaluate", {"expression": f"document.querySelector({json.dumps(selector)})"})["result"]
        self.send("DOM.setFileInputFiles", {"files": [str(file) for file in files], "objectId": found["objectId"]})

    def press(self, key: str, code: str = "", number: int = 0) -> None:
        """A key, pressed and let go."""
        for kind in ("keyDown", "keyUp"):
            params = {"type": kind, "key": key, "code": code or key, "windowsVirtualKeyCode": number}
            self.send("Input.dispatchKeyEvent", params | ({"text": "\r"} if key == "Enter" and kind == "keyDown" else {}))

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        picture = self.send("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        path.write_bytes(base64.b64decode(picture["data"]))
