"""A page as one HTML file that asks for nothing: style, scripts and data are inside, the browser refuses the rest."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from retain_core.report.palette import look, variables
from retain_core.report.parts import Page
from retain_core.report.vega import bundle, for_page

SHAPE_PATHS = {
    "circle": "M6 0A6 6 0 1 1-6 0A6 6 0 1 1 6 0Z", "square": "M-5.5-5.5H5.5V5.5H-5.5Z", "triangle-up": "M0-6.5L6.5 5.5H-6.5Z",
    "diamond": "M0-7L6 0L0 7L-6 0Z", "cross": "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z", "triangle-down": "M0 6.5L6.5-5.5H-6.5Z",
}  # fmt: skip
"""The shapes of Vega's symbols, for the legend."""
STATES = {
    "light": {"bad": "#b42318", "good": "#1a7f37", "focus": "#0969da"},
    "dark": {"bad": "#ff8177", "good": "#57c173", "focus": "#58a6ff"},
}


def render(page: Page) -> str:
    """The page as HTML. What comes from data is escaped, or stands in a block of JSON that cannot end early."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(autoescape=True, loader=PackageLoader("retain_core.report"), trim_blocks=True)
    environment.globals |= {"shapes": SHAPE_PATHS, "look": look}
    style, scripts = _style(), [bundle(), _static("page.js")]
    return environment.get_template("page.html.j2").render(
        page=page, style=Markup(style), policy=policy([style], scripts), bundle=Markup(scripts[0]), script=Markup(scripts[1]),
        data=Markup(json_block({
            "charts": {chart.name: for_page(chart) for chart in page.charts}, "datasets": page.datasets, "items": page.items,
            "sides": page.sides, "alone": page.alone,
        })),
    )  # fmt: skip


def policy(styles: list[str], scripts: list[str]) -> str:
    """A Content-Security-Policy: nothing may be loaded, sent or run but these very texts."""
    hashed = {
        name: " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts)
        for name, texts in (("style", styles), ("script", scripts))
    }
    return (
        f"default-src 'none'; script-src {hashed['script']}; style-src {hashed['style']}; style-src-attr 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )


def json_block(value: Any) -> str:
    """JSON that can stand inside a script element: no `<`, no line that JavaScript would end early. NaN is refused."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode("utf-8", "replace").decode("utf-8")


def _style() -> str:
    """The style sheet with the colours of both themes; paper is light."""
    light, dark = (_declared(theme) for theme in ("light", "dark"))
    head = (
        f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n@media print {{ :root "
        "{ color-scheme: light } }\n"
    )
    return f"{head}{_static('page.css')}"


def _declared(theme: str) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in (variables(theme) | STATES[theme]).items())


def _static(name: str) -> str:
    return (files("retain_core.report") / "static" / name).read_text(encoding="utf-8")
