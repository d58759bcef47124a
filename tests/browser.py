"""A real browser for the tests of the HTML report: Debian's Chromium without a window, driven by selenium."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="Chromium is not installed: apt-get install chromium chromium-driver"
)
PHONE, LAPTOP = (390, 844), (1280, 800)


class Page:
    """One page in the browser, and what it did that can't be seen: requests, and messages on its console."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.requests: list[str] = []
        self.messages: list[str] = []

    def open(self, path: Path, size: tuple[int, int] = LAPTOP, dark: bool = False) -> None:
        """Open a file as a double click does, at this size."""
        self.driver.get("about:blank")
        self.look(size, dark)
        self.gather()
        self.requests, self.messages = [], []
        self.driver.get(path.as_uri())
        # On a busy machine the driver may come back while the page before is still there.
        self.wait(f"location.href === {path.as_uri()!r} && document.readyState === 'complete'")

    def look(self, size: tuple[int, int] = LAPTOP, dark: bool = False) -> None:
        """Change the size of the window, and the colours that the system asks for."""
        phone = size == PHONE
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def gather(self) -> None:
        """Take what the browser logged since last time. An image that lies in the page itself is no request."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent" and not _url(message).startswith("data:"):
                self.requests.append(_url(message))
        self.messages += [entry["message"] for entry in self.driver.get_log("browser")]

    def js(self, script: str, *arguments: Any) -> Any:
        """The value of an expression, or of statements that return one; promises are awaited."""
        body = script if "return " in script else f"return ({script})"
        return self.driver.execute_script(body, *arguments)

    def wait(self, script: str, seconds: float = 60) -> None:
        """Until an expression is true."""
        deadline = time.monotonic() + seconds
        while not self.js(script):
            assert time.monotonic() < deadline, script
            time.sleep(0.05)

    def draw_all(self, seconds: float = 30) -> None:
        """Scroll through the page until every chart is drawn."""
        deadline = time.monotonic() + seconds
        waiting = "return all('figure.chart:not([hidden])').filter(f => !f.querySelector('.plot .main-svg, .nothing'))"
        while left := self.js(waiting):
            assert time.monotonic() < deadline, [one.get_attribute("data-chart") for one in left]
            self.js("return arguments[0].scrollIntoView({block: 'center'})", left[0])
            time.sleep(0.05)
        self.js("return scrollTo(0, 0)")

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        path.write_bytes(base64.b64decode(shot["data"]))

    def printed(self) -> bytes:
        """The page as it is printed: a PDF."""
        return base64.b64decode(self.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])

    def violations(self) -> list[str]:
        """What axe-core calls serious or critical, as `rule: element`."""
        import axe_core_python

        source = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
        self.js(source + "; return 0")
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run({resultTypes: ['violations']}).then((found) => done(found.violations))"
        )
        return [
            f"{one['id']}: {node['html'][:150]} {node.get('failureSummary', '')}"
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]


def _url(message: dict[str, Any]) -> str:
    url: str = message["params"]["request"]["url"]
    return url


def browse() -> Iterator[Page]:
    """A browser, while a fixture lasts."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(CHROMIUM)
    # Containers have no /dev/shm to speak of, and root may not use Chromium's sandbox.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        driver.set_script_timeout(180)
        yield Page(driver)
    finally:
        driver.quit()
