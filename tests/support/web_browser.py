"""The page as a visitor has it: the command as a process of its own, and headless Chromium."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

# A shared machine may be slow, and a page that is broken fails soon enough.
PATIENCE = 120
_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1280,1100"
)


class Server:
    """``sam-uniref demo`` in a process of its own, with a temporary folder of its own.

    Attributes:
        url: Of the page.
        folder: In which its temporary files are.
        log: What it wrote so far.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.log: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "sam_uniref.cli", "demo", "--no-open", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"},
            cwd=folder,
        )
        self._started = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        if not self._started.wait(2 * PATIENCE) or not self._found():
            self.stop()
            raise AssertionError("".join(self.log))
        self.url = self._found()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.log.append(line)
            if "http://" in line:
                self._started.set()
        self._started.set()

    def _found(self) -> str:
        found = re.search(r"http://[\w.]+:\d+/?", "".join(self.log))
        return found[0] if found else ""

    def stop(self) -> int:
        """End it as Ctrl-C does; its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise


def browser_or_skip() -> tuple[str, str]:
    """Chromium and its driver, or a skip that says what is missing."""
    pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'sam_uniref[demo]'")
    pytest.importorskip("selenium", reason="the browser tests need selenium")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver here; make test-web installs them on Debian")
    return chromium, driver


@contextmanager
def opened() -> Iterator[Any]:
    """A browser with a profile of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver = browser_or_skip()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*_FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        browser = webdriver.Chrome(options=options, service=Service(driver))
        try:
            browser.set_page_load_timeout(PATIENCE)
            yield browser
        finally:
            browser.quit()


class Visitor:
    """Somebody at the page in a browser's window."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        browser.get(url)
        self.window = browser.current_window_handle
        self.until(lambda: self.all("#picture canvas"))

    def all(self, selector: str) -> list[Any]:
        """Elements by CSS."""
        from selenium.webdriver.common.by import By

        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> Any:
        """The first such element, once it is there."""
        return self.until(lambda: self.all(selector))[0]

    def until(self, true: Callable[[], T]) -> T:
        """Wait for something; elements may be replaced meanwhile."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.browser, PATIENCE, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(lambda _: true())

    def open_tab(self, name: str) -> None:
        """Image, Video or Compare."""
        self.until(lambda: [tab for tab in self.all("button[role=tab]") if tab.text.strip() == name])[0].click()

    def upload(self, button: str, file: Path) -> None:
        """Choose a file."""
        self.one(f"input[type=file]:has(+ #{button})").send_keys(str(file))

    def number(self, pad: str) -> str | None:
        """Of the picture that a pad shows."""
        return self.browser.execute_script(f"return document.querySelector('[data-pad={pad}]').dataset.number")

    def write(self, box: str, text: str) -> None:
        """Write into a text box, in place of what is in it."""
        field = self.one(f"#{box} textarea, #{box} input")
        field.clear()
        field.send_keys(text)

    def press(self, button: str) -> None:
        """Click a button."""
        element = self.one(f"#{button}")
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def drag(self, pad: str, *places: tuple[float, float]) -> None:
        """Press on a pad at the first place, draw to the others, let go; places are shares of width and height."""
        from selenium.webdriver.common.action_chains import ActionChains

        canvas = self.one(f"#{pad} canvas")
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        width, height = canvas.size["width"], canvas.size["height"]
        actions = ActionChains(self.browser, duration=50)
        for n, (x, y) in enumerate(places):
            actions.move_to_element_with_offset(canvas, (x - 0.5) * width, (y - 0.5) * height)
            if n == 0:
                actions.click_and_hold()
        actions.release().perform()

    def tool(self, pad: str, name: str) -> None:
        """Take a pad's tool."""
        self.one(f"#{pad} [data-tool={name}]").click()

    def text(self, selector: str) -> str:
        """What is read there."""
        found = self.all(selector)
        return found[0].text if found else ""

    def source(self, selector: str) -> str:
        """Address of a picture or video, empty where there is none."""
        found = self.all(selector)
        return (found[0].get_attribute("src") or "") if found else ""

    def error(self) -> str:
        """The message that the page shows, once it does; it is dismissed."""
        message = self.until(lambda: self.text(".toast-body"))
        for cross in self.all(".toast-close"):
            self.browser.execute_script("arguments[0].click()", cross)
        self.until(lambda: not self.all(".toast-body"))
        return str(message)
