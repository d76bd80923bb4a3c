"""A search as one HTML page, complete in itself: data, style and script inside, and no right to load anything."""

import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Any

from .data import Picture


def render(picture: Picture, live: str | None = None) -> str:
    """The page, whole. The search goes in as JSON in ASCII, with nothing in it that HTML could take for a tag.

    `live`: the path where a search that still runs tells of itself (`feed.Feed.stream`). That page may connect to its
    own server, and to nothing else.
    """
    before, after = _template("; connect-src 'self'" if live else "")
    return before + as_json(picture, live=live) + after


def as_json(picture: Picture, **more: Any) -> str:
    """What the page's script is given, on one line."""
    data = json.dumps(
        {
            "question": picture.question,
            "chosen": picture.chosen,
            "told": picture.told,
            "columns": picture.columns,
            **picture.facts,
            **{name: value for name, value in more.items() if value is not None},
        },
        allow_nan=False,
        separators=(",", ":"),
    )
    for sign in "<>&":
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    return data


def frame(page: str, height: int = 620) -> str:
    """The page in a frame of `height` pixels for a notebook; it cannot reach what is around it."""
    return (
        f'<iframe sandbox="allow-scripts" style="width:100%;height:{height}px;border:0" title="search tree" '
        f'srcdoc="{escape(page)}"></iframe>'
    )


def _template(more: str = "") -> tuple[str, str]:
    """What comes before the data, and what comes after; `more` goes into the policy of what the page may do."""
    html, style, script = (
        (files(__name__.rpartition(".")[0]) / f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js")
    )
    policy = f"default-src 'none'; style-src '{hashed(style)}'; script-src '{hashed(script)}'; base-uri 'none'{more}"
    before, after = html.split("{data}")
    before = before.replace("{policy}", f"{policy}; form-action 'none'").replace("{style}", style)
    return before, after.replace("{script}", script)


def hashed(text: str) -> str:
    """What a Content-Security-Policy calls a style or script by."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
