"""A search as one HTML page, complete in itself: data, style and script inside, and no right to load anything."""

import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib.resources import files

from .data import Picture


def render(picture: Picture) -> str:
    """The page, whole. The search goes in as JSON in ASCII, with nothing in it that HTML could take for a tag."""
    data = json.dumps(
        {
            "question": picture.question,
            "chosen": picture.chosen,
            "told": picture.told,
            "columns": picture.columns,
            **picture.facts,
        },
        allow_nan=False,
        separators=(",", ":"),
    )
    for sign in "<>&":
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    before, after = _template()
    return before + data + after


def frame(page: str, height: int = 620) -> str:
    """The page in a frame of `height` pixels for a notebook; it cannot reach what is around it."""
    return (
        f'<iframe sandbox="allow-scripts" style="width:100%;height:{height}px;border:0" title="search tree" '
        f'srcdoc="{escape(page)}"></iframe>'
    )


def _template() -> tuple[str, str]:
    """What comes before the data, and what comes after."""
    html, style, script = (
        (files(__name__.rpartition(".")[0]) / f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js")
    )
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'"
    before, after = html.split("{data}")
    before = before.replace("{policy}", f"{policy}; form-action 'none'").replace("{style}", style)
    return before, after.replace("{script}", script)


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
