"""Pictures of a page as people see it: light, dark, on a phone, on paper.

    python -m tests.browser.shoot PAGE.html FOLDER

writes light.png, dark.png, phone.png, phone-dark.png (whole pages), first.png (the first screen) and paper.pdf.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

VIEWS = {
    "first": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "device_scale_factor": 2},
    "phone-dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}


def shoot(page_file: Path, folder: Path) -> None:
    """Open the page in every view and write what it looks like."""
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, options in VIEWS.items():
            context = browser.new_context(**options)
            page = context.new_page()
            page.on("console", lambda message, name=name: print(f"{name}: {message.type}: {message.text}"))
            page.goto(page_file.resolve().as_uri())
            page.wait_for_selector("body[data-drawn=yes]")
            page.screenshot(path=folder / f"{name}.png", full_page=name != "first")
            if name == "dark":
                page.pdf(
                    path=folder / "paper.pdf", format="A4", margin=dict.fromkeys(("top", "bottom", "left", "right"), "12mm")
                )
            context.close()
        browser.close()


if __name__ == "__main__":
    shoot(Path(sys.argv[1]), Path(sys.argv[2]))
