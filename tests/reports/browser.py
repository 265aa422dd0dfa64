"""A real browser that opens a page and tells what it complained about and what it asked for."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--homepage=about:blank",
    "--force-device-scale-factor=1",
    "--autoplay-policy=no-user-gesture-required",
]


class Opened:
    """A page in the browser.

    Args:
        driver: selenium's.
    """

    def __init__(self, driver) -> None:
        self.driver = driver

    def run(self, script: str):
        """The value of a JavaScript expression."""
        return self.driver.execute_script(f"return {script}")

    def wait(self, script: str, seconds: float = 60):
        """Wait until a JavaScript expression is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, seconds, 0.1).until(lambda driver: driver.execute_script(f"return {script}"))

    def find(self, selector: str):
        return self.driver.find_element("css selector", selector)

    def complaints(self) -> list[str]:
        """What the console says, errors and warnings of the page alone."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING") and "GL Driver Message" not in entry["message"]
        ]

    def requests(self) -> list[str]:
        """Addresses that were asked for, besides what the page holds itself."""
        asked = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.append(message["params"]["request"]["url"])
        return [address for address in asked if not address.startswith(("data:", "blob:", "chrome"))]


@contextlib.contextmanager
def opened(path: Path | str, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Opened]:
    """Open a page, and wait until it has drawn everything."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and its driver; apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium; pip install selenium")
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in [*FLAGS, f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": theme})
            driver.get(path if isinstance(path, str) else path.absolute().as_uri())
            page = Opened(driver)
            page.wait("'ready' in document.documentElement.dataset")
            yield page
        finally:
            driver.quit()
