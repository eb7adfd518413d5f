"""Headless Chromium over its debugging pipe, and a server of static files; nothing else is needed."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome")


# Chromium reads commands from descriptor 3 and answers on 4.
_START = """
import fcntl, os, sys
given, taken = (fcntl.fcntl(int(number), fcntl.F_DUPFD_CLOEXEC, 10) for number in sys.argv[1:3])
os.dup2(given, 3)
os.dup2(taken, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class BrowserGoneError(Exception):
    """Chromium has ended or does not answer."""


class Chromium:
    """A headless Chromium with a profile of its own."""

    def __init__(self, executable: str, profile: str) -> None:
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        command = [executable, "--headless", "--remote-debugging-pipe", "--no-sandbox", "--no-first-run"]
        command += ["--disable-gpu", "--disable-extensions", f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(theirs_in), str(theirs_out), *command],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._numbers = itertools.count(1)
        self._read = b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Sends a command of the DevTools protocol and returns its answer; events are kept."""
        message: dict[str, Any] = {"id": next(self._numbers), "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") != message["id"]:
                self.events.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']}")
            else:
                return answer["result"]

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._from], [], [], 300)
            content = os.read(self._from, 1 << 20) if ready else b""
            if not content:
                raise BrowserGoneError("Chromium has ended" if ready else "Chromium did not answer for 300 s")
            self._read += content
        message, self._read = self._read.split(b"\0", 1)
        return json.loads(message)

    def open(
        self, url: str, *, width: int = 1200, height: int = 1000, dark: bool = False, before: str = ""
    ) -> Page:
        """Opens a page in a tab of its own; ``before`` is run in it ahead of its own scripts."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            page.call(f"{domain}.enable")
        page.show(width=width, height=height, dark=dark)
        if before:
            page.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        page.call("Page.navigate", url=url)
        page.wait("location.href !== 'about:blank' && document.readyState === 'complete'")
        return page

    def close(self) -> None:
        """Ends it."""
        with contextlib.suppress(BrowserGoneError, OSError):
            self.call("Browser.close")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)


class Page:
    """One tab."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command to the tab."""
        return self._browser.call(method, session=self._session, **parameters)

    def show(self, *, width: int, height: int, dark: bool = False) -> None:
        """Chooses the size of the view in CSS pixels, and light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, script: str) -> Any:
        """Returns the value of an expression; waits when it is a promise."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def wait(self, condition: str, *, seconds: float = 120) -> Any:
        """Waits until an expression is true, and returns its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.run(condition)
            if value:
                return value
            time.sleep(0.05)
        text = self.run("document.body?.innerText")
        raise AssertionError(f"{condition} did not come true in {seconds} s; the page says: {text}")

    def choose_file(self, selector: str, path: Path) -> None:
        """Puts a file into a file input, as a user would."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def screenshot(self, path: Path) -> None:
        """Writes a PNG of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """What the browser complains of: files that are missing or refused, exceptions that nobody caught."""
        self.run("0")
        texts = []
        for event in self._browser.events:
            if event.get("sessionId") != self._session:
                continue
            given = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                texts.append(str(given["exceptionDetails"].get("exception", given["exceptionDetails"])))
            elif event["method"] == "Log.entryAdded" and given["entry"]["level"] == "error":
                texts.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")
        return texts

    def requests(self) -> list[str]:
        """The addresses that the tab has asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self._browser.events
            if event.get("sessionId") == self._session and event["method"] == "Network.requestWillBeSent"
        ]


def find_chromium() -> str | None:
    """Returns the path of an installed Chromium, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def chromium() -> Iterator[Chromium]:
    """Starts a browser, and ends it with its profile."""
    executable = find_chromium()
    assert executable, "no Chromium is installed"
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        browser = Chromium(executable, profile)
        try:
            yield browser
        finally:
            browser.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Python's own server of static files, as `python -m http.server` runs it, without its log."""

    def log_message(self, *_: Any) -> None:
        pass


class _Decoding(_Quiet):
    """A server that calls the compression of .gz files an encoding, as some do."""

    def end_headers(self) -> None:
        if self.path.endswith(".gz"):
            self.send_header("Content-Encoding", "gzip")
        super().end_headers()


@contextlib.contextmanager
def static_server(folder: Path, *, decoding: bool = False) -> Iterator[str]:
    """Serves a folder on loopback; yields the address that ends in ``/``."""
    handler = functools.partial(_Decoding if decoding else _Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
