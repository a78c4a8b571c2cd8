"""The first screen of a results page as a PNG: ``PYTHONPATH=tests python -m helpers.screenshot PAGE PNG``."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

from helpers.browser import opened, prefer

WIDTH, HEIGHT = 1280, 980


def screenshot(page: Path, image: Path) -> None:
    """Write what a reader with a light desktop sees without scrolling."""
    with opened(page.resolve()) as driver:
        prefer(driver, "light")
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT, "scale": 1}
        screen = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": clip})
        image.write_bytes(base64.b64decode(taken["data"]))


if __name__ == "__main__":
    screenshot(Path(sys.argv[1]), Path(sys.argv[2]))
