r"""Final answers: found in text, brought to a canonical form, compared.

Nothing here evaluates an expression: ``2 * 12`` and ``24`` are two answers (in a puzzle that asks for the expression
they have to be), ``0.5``, ``1/2`` and ``\frac{1}{2}`` are one.
"""

import re
from fractions import Fraction

_MARKED = (  # what follows a marker, to the end of the line
    re.compile(r"^[ \t]*####(.+)$", re.MULTILINE),
    re.compile(r"\banswer(?:[ \t]+is)?[ \t]?[:=](.+)$", re.MULTILINE | re.IGNORECASE),
    re.compile(r"\banswer[ \t]+is[ \t]((?:[^.\n]|\.(?=\S))+)", re.MULTILINE | re.IGNORECASE),
    re.compile(r"^[ \t]*A:(.+)$", re.MULTILINE),
)
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?%?")
_FRACTION = re.compile(r"([-+]?)\\[dt]?frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}")
_LONGEST = 2000  # characters; longer texts are compared as they stand


def extract_answer(text: str) -> str | None:
    r"""The final answer in `text`: the last ``\boxed{}``, or else what follows the last of ``####``,
    ``Answer:``, ``the answer is`` and ``A:``. None where nothing is marked as an answer."""
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed or None
    found = [(m.start(), i, m.group(1)) for i, marker in enumerate(_MARKED) for m in marker.finditer(text[-20_000:])]
    if not found:
        return None
    answer = max(found)[2].strip().strip("*_`").rstrip(".").strip()
    return answer or None


def _last_boxed(text: str) -> str | None:
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    opening = text.index("{", start)
    depth = 0
    for i in range(opening, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[opening + 1 : i].strip()
    return None  # cut off in the middle


def canonical(answer: str) -> str:
    """The form under which answers are compared and votes are counted; numbers become reduced fractions."""
    if answer.isdigit() and len(answer) < 20 and answer.isascii():  # by far the most frequent
        return answer.lstrip("0") or "0"
    if len(answer) > _LONGEST:
        return answer.strip()
    text = _TEXT.sub(r"\1", answer.strip())
    text = _FRACTION.sub(lambda m: f"{m[1]}{m[2] or m[3]}/{m[4] or m[5]}", text)
    for noise in ("\\left", "\\right", "\\!", "\\,", "\\;", "\\ ", "\\$", "$", "\\(", "\\)", "\\[", "\\]"):
        text = text.replace(noise, "")
    text = text.replace("\\%", "%").replace("\\cdot", "*").replace("\\times", "*").replace("\\div", "/")
    text = " ".join(text.split()).rstrip(".").strip().strip("*_`").strip()
    number = _number(text)
    if number is not None:
        return str(number)
    return re.sub(r"\s*([-+*/=(){}\[\],^_<>|])\s*", r"\1", text).casefold()


def _number(text: str) -> Fraction | None:
    compact = text.replace(" ", "")
    over = compact.split("/")
    if len(over) > 2 or len(compact) > 60:
        return None
    parts: list[Fraction] = []
    for part in over:
        if not _NUMBER.fullmatch(part) or not any(c.isdigit() for c in part):
            return None
        scale = 100 if part.endswith("%") else 1
        parts.append(Fraction(part.rstrip("%").replace(",", "")) / scale)
    if len(parts) == 1:
        return parts[0]
    return parts[0] / parts[1] if parts[1] else None


def equivalent(a: str, b: str) -> bool:
    """Whether two answers are the same; never hangs, never raises on model text."""
    return a == b or canonical(a) == canonical(b)
