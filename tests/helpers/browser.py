"""Chromium without a window, as a fixture's driver."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

#: Contrast of each text with what is behind it (WCAG 2.2), as [text, contrast], of what is visible.
CONTRASTS = """
const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const parts = (color) => color.match(/[\\d.]+/g).map(Number);
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const found = parts(getComputedStyle(at).backgroundColor);
    if (found.length === 3 || found[3] === 1) return found;
  }
  return [255, 255, 255];
};
const found = [];
for (const element of document.querySelectorAll("main *, nav *")) {
  const words = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join(" ").trim();
  if (!words || element.closest("svg, script") || !element.checkVisibility()) continue;
  const [a, b] = [light(parts(getComputedStyle(element).color)), light(behind(element))];
  found.push([words, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]);
}
return found;
"""


@contextmanager
def opened(page: Path) -> Iterator[Chrome]:
    """Open a page from disk; afterwards the browser is gone."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    # a container has no user namespaces and a small /dev/shm
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument("--window-size=1300,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.get(page.as_uri())
        yield driver
    finally:
        driver.quit()


def draw_everything(driver: Chrome) -> None:
    """Scroll to every visible chart until it is drawn."""
    charts = "[...document.querySelectorAll('[data-chart]')].filter((chart) => chart.checkVisibility())"
    driver.execute_script(f"{charts}.forEach((chart) => near.unobserve(chart) ?? near.observe(chart))")
    for index in range(driver.execute_script(f"return {charts}.length")):
        driver.execute_script(f"{charts}[{index}].scrollIntoView()")
        drawn = f"return {charts}[{index}].querySelector('svg') !== null"
        WebDriverWait(driver, 60).until(lambda each, drawn=drawn: each.execute_script(drawn), f"chart {index}")


def requested(driver: Chrome) -> list[str]:
    """Return the addresses that were asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def prefer(driver: Chrome, scheme: str) -> None:
    """Ask for ``light`` or ``dark``, as a reader's system does."""
    features: list[dict[str, Any]] = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def narrow(driver: Chrome, width: int) -> None:
    """Show the page as a phone of this width does."""
    screen = {"width": width, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
