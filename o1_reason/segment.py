"""Where one step of a text ends and the next begins."""

import re

_BLOCKS = re.compile(r"```.*?(?:```|\Z)|\\\[.*?(?:\\\]|\Z)|\$\$.*?(?:\$\$|\Z)", re.DOTALL)


def split_steps(text: str, separator: str = "\n\n", most: int | None = None) -> list[str]:
    r"""`text` cut at `separator`, blank pieces dropped; what is beyond `most` steps stays in the last one.

    A separator inside a code block, ``\[ \]`` or ``$$ $$`` is part of the step.
    """
    fences = [match.span() for match in _BLOCKS.finditer(text)]
    pieces: list[str] = []
    start = at = 0
    while (at := text.find(separator, at)) >= 0:
        inside = next((end for begin, end in fences if begin < at < end), None)
        if inside is not None:
            at = inside
            continue
        if text[start:at].strip():
            if most is not None and len(pieces) == most - 1:
                break
            pieces.append(text[start:at].strip())
            start = at + len(separator)
        at += len(separator)
    if text[start:].strip():
        pieces.append(text[start:].strip())
    return pieces
