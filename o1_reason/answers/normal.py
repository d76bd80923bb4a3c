r"""The normal form of a final answer: what is left when harmless ways of writing are taken away.

Pure text, microseconds, never evaluated: ``0.5``, ``1/2`` and ``\dfrac12`` are one, and so are ``(B)`` and ``B``,
``x = 5`` and ``5``, ``12\text{ cm}`` and ``12``; ``2 * 12`` and ``24`` are two. What mathematics makes equal is
`mathematics`'s to say.

Known losses: upper and lower case are one, and so are all units (``5 minutes``, ``5 hours``): a question asks for one.
"""

import re
from fractions import Fraction

LONGEST = 2000  # characters; longer texts are compared as they stand
LONGEST_NUMBER = 300
FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp"
GREEK = (
    "alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|vartheta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau|"
    "upsilon|phi|varphi|chi|psi|omega"
)
NAME = rf"(?:[a-df-hj-z]|\\(?:{GREEK})(?![a-z]))(?:_(?:\w|\{{\w+\}}))?"  # of an unknown; e and i are numbers
_ASCII = re.ASCII

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "×": "*", "·": "*", "⋅": "*", "∗": "*", "÷": "/", "∕": "/", "≤": "\\le ", "≥": "\\ge ",
        "≠": "\\ne ", "≈": "\\approx ", "π": "\\pi ", "∞": "\\infty ", "∪": "\\cup ", "∈": "\\in ", "√": "\\sqrt ",
        "°": "^\\circ ", "²": "^2", "³": "^3", "±": "\\pm ", "⟨": "(", "⟩": ")", "’": "'", "“": '"', "”": '"',
        "€": "", "£": "", "¥": "", "₹": "", "\u200b": "",
    }
)  # fmt: skip
_COMMANDS = {
    **dict.fromkeys(("left", "right", "!", "displaystyle", "textstyle", "limits", "$", "(", ")", "[", "]"), ""),
    **dict.fromkeys(("big", "bigl", "bigr", "bigg", "biggl", "biggr"), ""),
    **dict.fromkeys((",", ";", ":", " ", "\n", "quad", "qquad", "thinspace", "enspace"), " "),
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), "\\frac"),
    **dict.fromkeys(("cdot", "times", "ast"), "*"),
    **dict.fromkeys(("leq", "leqslant"), "\\le"),
    **dict.fromkeys(("geq", "geqslant"), "\\ge"),
    **dict.fromkeys(("lvert", "rvert", "vert", "mid"), "|"),
    **dict.fromkeys(("dots", "ldots", "cdots"), "..."),
    "div": "/", "neq": "\\ne", "lt": "<", "gt": ">", "%": "%", "colon": ":", "langle": "(", "rangle": ")",
    "lbrace": "\\{", "rbrace": "\\}", "varnothing": "\\emptyset", "degree": "^\\circ", "infinity": "\\infty",
}  # fmt: skip
_COMMAND = re.compile(r"\\([a-z]+|.)", re.DOTALL)
_TEXT = r"\\(?:text|textrm|textnormal|textbf|textit|mathrm|mathbf|mathit|mbox|hbox|boldsymbol|boxed|fbox)\s*"
_STYLED = re.compile(_TEXT + r"\{([^{}]*)\}")
_LATEX_UNIT = re.compile(r"\s*" + _TEXT + r"\{\s*([a-z][a-z ./-]*|)\}\s*(?:\^\s*\{?[23]\}?)?\s*\.?\s*")
_GAP = re.compile(r"(?:\s|~|\\[ ,;:!])+$")
_PLAIN_UNIT = re.compile(r"([-+0-9.,/ ]*[0-9])(\s*)([a-z][a-z. /]*?)(?:\^\{?[23]\}?)?")
_UNIT_WORD = re.compile(r"[a-z.]{3,}|cm|mm|km|kg|mg|ml|lb|oz|ft|yd|mi|hr|in|sq|cu|of")
_ATTACHED_UNIT = re.compile(r"cm|mm|km|kg|mg|ml|lbs|oz|ft|mph")  # 5km
_NO_UNIT = re.compile(
    rf"and|or|hundred|thousand|million|billion|trillion|dozen|mod|base|infty|infinity|sqrt|{FUNCTIONS}|[ap]\.?m\.?"
)
_GROUPS = re.compile(r"(?<=[0-9])(?:,\\!|\{,\}|\\,|\\!)\s*(?=[0-9]{3}(?![0-9]))")
_PHANTOM = re.compile(r"\\phantom\s*(?:\{[^{}]*\}|.)|\\hspace\s*\{[^{}]*\}")
_PERCENT = re.compile(r"\s*\b(?:percent|per cent|pct)\b")
_BARE = re.compile(rf"(?<![\\a-z])(sqrt|pi|infty|{FUNCTIONS})(?![a-z])")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-z]))")
_TRIGONOMETRIC = re.compile(r"sin|cos|tan|cot|sec|csc")
_AND = re.compile(r"\s*,?\s*\b(?:and|or)\b\s*")
_WORD = re.compile(r"(?<![\\{a-z])[^\W\d_]{3,}")
_SEPARATING = re.compile(r"(?<![0-9]),|,(?![0-9]{3}(?![0-9]))")  # a comma that does not group digits
_OPERATOR = re.compile(r"\s*([-+*/=(){}\[\],^_<>|])\s*")
_AFTER_COMMAND = re.compile(r"(\\[a-z]+)\s+(?=[a-z])")
_SPACE = re.compile(r"(?<![0-9])\s+|\s+(?![0-9])")
_SCRIPT = re.compile(r"([\^_])\{(?:([0-9]+)(?![0-9]*\}[0-9])|([a-z]))\}")
_POWER = re.compile(r"\^(?:\(([^()]*)\)|(-(?:[0-9]+|[a-z])))")
_CHOICE = re.compile(r"(?:(?:option|choice|answer)\s*)?\(?([a-z])[).:]*|(?:option|choice)\s*\(?([a-z])\)?")
_ASSIGNED = re.compile(rf"{NAME}(?:=|\\in(?![a-z])\s*)(.+)")
_CONSTANT = re.compile(rf"\\(?:frac|sqrt|pi|infty|cup|circ|binom|pm|{FUNCTIONS})(?![a-z])|[ei]")
_OPENING, _CLOSING = "([{", ")]}"


def canonical(answer: str) -> str:
    """The normal form: answers that have the same one are the same answer. Numbers become reduced fractions."""
    if answer.isdigit() and len(answer) < 20 and answer.isascii():  # by far the most frequent
        return answer.lstrip("0") or "0"
    text = answer.strip()
    if len(text) > LONGEST:
        return text
    value = number(text)
    if value is not None:
        return str(value)
    for _ in range(LONGEST):  # until nothing changes: only then is the form of the form the form
        before = text
        text = _pass(text)
        if text == before or len(text) > LONGEST:
            break
    return text


def _pass(text: str) -> str:
    text = text.casefold()
    if "{,}" in text or "\\" in text:
        text = _GROUPS.sub("", text)
    listed = _SEPARATING.search(text)
    text = _tidy(text)
    assigned = _ASSIGNED.fullmatch(text)
    if assigned and constant(assigned[1]):
        text = assigned[1]
    value = number(text)
    if value is not None:
        return text.replace(",", ", ") if listed and "," in text else str(value)
    choice = _CHOICE.fullmatch(text)
    return choice[1] or choice[2] if choice else text


def _tidy(text: str) -> str:
    if not text.isascii():
        text = text.translate(_UNICODE)
    if "$" in text:
        text = text.replace("\\$", "").replace("$", "")
    text = _strip(" ".join(text.split()))
    if "\\" in text:
        text = _tidy_latex(text)
    text = _PERCENT.sub("%", text)
    unit = _PLAIN_UNIT.fullmatch(text)
    if unit and _is_unit(unit[3], bool(unit[2])):
        text = unit[1]
    text = _BARE.sub(r"\\\1", text)
    if "^" in text or "**" in text:
        text = _POWER.sub(r"^{\1\2}", text.replace("**", "^"))
        if not _TRIGONOMETRIC.search(text):
            text = _DEGREES.sub("", text)
    text = text.replace("<=", "\\le ").replace(">=", "\\ge ").replace("!=", "\\ne ")
    return _unwrap(_strip(_spaces(text)))


def _tidy_latex(text: str) -> str:
    text = _PHANTOM.sub("", text).replace("{bmatrix}", "{pmatrix}")
    unit = _trailing_unit(text)
    if unit is not None:
        text = unit
    text = _STYLED.sub(r"\1", _COMMAND.sub(lambda m: _COMMANDS.get(m[1], m[0]), text))
    for command, arguments in (("\\frac", 2), ("\\sqrt", 1)):
        if command in text:
            text = _brace(text, command, arguments)
    return text


def _trailing_unit(text: str) -> str | None:
    start = text.rfind("\\", 0, text.rfind("{"))
    match = _LATEX_UNIT.fullmatch(text, start) if start > 0 else None
    before = _GAP.sub("", text[: max(start, 0)])
    if match is None or not re.search(r"[0-9]|\\[a-z]", before) or before.endswith((",", "^", "_", "{", "(")):
        return None
    return before if _is_unit(match[1], True) else None


def _is_unit(text: str, apart: bool) -> bool:
    if not apart:
        return _ATTACHED_UNIT.fullmatch(text.rstrip(". ")) is not None
    words = text.replace("/", " ").split()
    return all(_UNIT_WORD.fullmatch(word.rstrip(".")) and not _NO_UNIT.fullmatch(word) for word in words)


def _strip(text: str) -> str:
    text = text.strip(" *_`").rstrip(" .,;:")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    for leading in ("=", "\\approx"):
        text = text.removeprefix(leading).lstrip()
    return text


def _spaces(text: str) -> str:
    """Without blanks that mean nothing; in prose they part words."""
    listed = _AND.sub(",", text)
    if not _WORD.search(listed):
        text = _AFTER_COMMAND.sub("\\1\0", listed)
        text = _SPACE.sub("", text).replace("\0", " ")
    else:
        text = _OPERATOR.sub(r"\1", " ".join(text.split()))
    return _SCRIPT.sub(r"\1\2\3", text)


def _unwrap(text: str) -> str:
    """Without brackets around the whole, unless they hold several things."""
    while text[:1] in ("(", "{") and text[:1] and closing(text, 0) == len(text) - 1:
        if text[0] == "(" and len(split(text[1:-1], ",;")) > 1:
            break
        text = text[1:-1].strip()
    return text


def _brace(text: str, command: str, arguments: int) -> str:
    r"""``\frac12`` as ``\frac{1}{2}``, ``\sqrt3`` and ``\sqrt(3)`` as ``\sqrt{3}``."""
    at = text.rfind(command)
    while at >= 0:
        end = at + len(command)
        if not text[end : end + 1].isalpha():
            head, tail = text[:end], text[end:].lstrip()
            for _ in range(arguments):
                argument, tail = _argument(tail)
                head += argument
            text = head + tail
        at = text.rfind(command, 0, at)
    return text


def _argument(tail: str) -> tuple[str, str]:
    """The first argument of a command, in braces, and what follows it."""
    index = re.match(r"\s*\[[^\[\]]*\]", tail)
    if index:
        argument, rest = _argument(tail[index.end() :].lstrip())
        return index[0].strip() + argument, rest
    if tail[:1] in ("{", "("):
        end = closing(tail, 0)
        if end < 0:
            return "", tail
        return "{" + tail[1:end].strip() + "}", tail[end + 1 :].lstrip()
    token = re.match(r"\\[a-z]+|[a-z0-9]", tail)
    if token is None:
        return "", tail
    return "{" + token[0] + "}", tail[token.end() :].lstrip()


def closing(text: str, start: int) -> int:
    """Where the bracket at `start` closes, whatever its kind (intervals are half open); -1: nowhere."""
    depth = 0
    for i in range(start, len(text)):
        if text[i] in _OPENING:
            depth += 1
        elif text[i] in _CLOSING:
            depth -= 1
            if depth == 0:
                return i
    return -1


def split(text: str, separators: str) -> list[str]:
    """The parts between `separators` that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        elif depth == 0 and character in separators:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def constant(text: str) -> bool:
    """Whether a canonical text has no unknown in it, and states nothing."""
    return not re.search(r"[a-z]|[=<>\\]", _CONSTANT.sub("", text))


_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
_NUMBER = re.compile(
    rf"([-+]?)\s*(?:({_DECIMAL})(e[-+]?[0-9]{{1,3}})?\s*(%?)"
    rf"|([0-9]*)\.([0-9]*)\\overline\{{([0-9]+)\}}"
    rf"|(?:([0-9]+)\s+)?([-+]?{_DECIMAL})\s*/\s*([-+]?{_DECIMAL})"
    rf"|([0-9]+)?\s*\\[dt]?frac\s*\{{\s*([-+]?{_DECIMAL})\s*\}}\s*\{{\s*([-+]?{_DECIMAL})\s*\}})",
    _ASCII,
)


def number(text: str) -> Fraction | None:
    r"""The value of a plain number: ``-3``, ``1,234.5``, ``50%``, ``1.5e3``, ``2/3``, ``2 1/2``, ``2\frac{1}{2}``,
    ``0.\overline{3}``. None for anything else."""
    match = _NUMBER.fullmatch(text) if len(text) <= LONGEST_NUMBER else None
    if match is None:
        return None
    sign, plain, exponent, percent, before, after, repeated, whole, over, under, whole_, over_, under_ = match.groups()
    if plain:
        value = Fraction(re.sub("[ ,]", "", plain) + (exponent or "")) / (100 if percent else 1)
    elif repeated:
        shift = 10 ** len(after)
        value = Fraction(int((before or "0") + after), shift)
        value += Fraction(int(repeated), shift * (10 ** len(repeated) - 1))
    else:
        top, bottom = (Fraction(re.sub("[ ,]", "", part)) for part in (over or over_, under or under_))
        if not bottom:
            return None
        value = int(whole or whole_ or 0) + top / bottom
    return -value if sign == "-" else value
