"""A search as a picture: one self-contained HTML page, a Mermaid flowchart, or the events it was made of.

Everything here takes plain data: what `Tree.to_data` gives, or what ``o1-reason solve --json --tree`` prints.
"""

from .data import Picture, load, of_result, read
from .feed import Feed
from .mermaid import flowchart
from .page import frame, render

__all__ = ["Feed", "Picture", "flowchart", "frame", "load", "of_result", "read", "render"]
