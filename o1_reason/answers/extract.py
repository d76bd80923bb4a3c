"""The final answer in a model's text: boxed, marked, in JSON, or the letter of a choice."""

import json
import re

_WINDOW = 20_000  # characters from the end; markers before them are not looked for
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_ASKED = r"(?:answer(?![ \t]+(?:choices|options|key)\b)|(?:correct|right|best)\s+(?:option|choice))"
_MARKERS = (  # an answer follows
    re.compile(r"^[ \t]*####", re.MULTILINE),
    re.compile(rf"\b{_ASKED}\b[ \t*_]*[:=]", re.IGNORECASE),
    re.compile(r"^[ \t#*_]*(?:the[ \t]+)?(?:final[ \t]+)?answer[ \t#*_]*$", re.MULTILINE | re.IGNORECASE),
    re.compile(r"^[ \t]*\*{0,2}A:", re.MULTILINE),
)
_SENTENCE = re.compile(
    rf"\b{_ASKED}\b(?:[^.\n:=?!]{{0,60}}?[ \t])?(?:is|are|be|equals)\b[ \t]*:?(?![ \t]+not\b)", re.IGNORECASE
)
_CONVERSE = re.compile(r"\b(?:option|choice)\s+\(?([A-Z])\)?\s+is\s+(?:the\s+)?(?:correct|right|best)\b")
_FIELD = re.compile(r"\"(?:final[_ ]?)?answer\"\s*:\s*", re.IGNORECASE)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_LATEX_ESCAPE = re.compile(r'(?<!\\)\\(?=(?!n|u[0-9a-f]{4})[a-zA-Z]{2}|[^"\\/bfnrtu])')  # \frac is no form feed
_FENCE = re.compile(r"```(?:[\w+-]*[ \t]*\n)?(.*?)```", re.DOTALL)
_DISPLAY = re.compile(r"\\\[(.*?)\\\]|\$\$(.*?)\$\$", re.DOTALL)
_INLINE = re.compile(r"\$([^$]*)\$|\\\((.*)\\\)")
_BOLD = re.compile(r"(?<![\w)*])\*\*(?=\S)(.*?)(?<=\S)\*\*")
_CHOICE = re.compile(r"\(([A-Z])\)|([A-H])(?:[).:](?=\s|$)|(?=,)|$)|([A-H])(?=\s+(?:because|since)\b)")
_MORE_CHOICES = re.compile(r"(?:and|or|,|&)\s*\(?[A-Z]\b(?!\))?")
_REASON = re.compile(r",?\s+(?:because|since)\s.*", re.DOTALL)
_AFTER_NUMBER = re.compile(r"(?<=[\d)}$%\]*])\.\s.*", re.DOTALL)
_AFTER_SENTENCE = re.compile(r"(?<!\b[A-Z])(?<!\b[A-Z][a-z])\.\s.*", re.DOTALL)


def extract_answer(text: str) -> str | None:
    r"""The final answer in `text`: the last ``\boxed{}``, or else what follows the last of ``####``, ``Answer:``,
    ``the answer is``, ``the correct option is``, ``A:`` and the field ``"answer"`` of a JSON reply: the rest of the
    line or sentence, or the display or code block that begins there. None where nothing is marked as an answer."""
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed or None
    text = text[-_WINDOW:]
    marked = [(m.end(), m.end(), False) for marker in _MARKERS for m in marker.finditer(text)]
    marked += [(m.end(), m.end(), True) for m in _SENTENCE.finditer(text)]
    marked += [(m.end(), m.start(), True) for m in _CONVERSE.finditer(text)]
    fields = {m.end(): m for m in _FIELD.finditer(text)}
    marked += [(end, end, False) for end in fields]
    for end, start, sentence in sorted(marked, reverse=True):
        if end in fields:
            answer = _field(text, end)
        elif start < end:
            answer = _CONVERSE.match(text, start)[1]  # type: ignore[index]
        else:
            answer = _after(text, end, sentence)
        if answer:
            return answer
    return None


def _last_boxed(text: str) -> str | None:
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    box = _BOX.match(text, start) if start >= 0 else None
    if box is None:
        return None
    depth = 0
    for i in range(box.end() - 1, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            content = text[box.end() : i].strip()
            return content.replace("\\\\", "\\") if text[start - 1 : start] == "\\" else content
    return None  # cut off in the middle


def _field(text: str, start: int) -> str | None:
    """The JSON value at `start`: a string's content, anything else as it is written."""
    string = _STRING.match(text, start)
    if string:
        try:
            content = json.loads(f'"{_LATEX_ESCAPE.sub(chr(92) * 4, string[1])}"', strict=False)
        except ValueError:
            content = string[1]
        return _bare(content)
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return None if value is None else text[start:end]


def _after(text: str, start: int, sentence: bool) -> str:
    """The answer that begins at `start`, or on the next line if nothing else is on this one."""
    rest = text[start:].lstrip(" \t*_").lstrip()
    fence = _FENCE.match(rest)
    if fence:
        return fence[1].strip()
    display = _DISPLAY.match(rest)
    if display:
        return (display[1] or display[2] or "").strip().rstrip(".").strip()
    line = _BOLD.sub(r"\1", rest.split("\n", 1)[0]).strip()
    choice = _CHOICE.match(line)
    if choice and not _MORE_CHOICES.match(line[choice.end() :].lstrip()):
        return choice[1] or choice[2] or choice[3]
    line = _REASON.sub("", line)
    return _bare((_AFTER_SENTENCE if sentence else _AFTER_NUMBER).sub("", line))


def _bare(answer: str) -> str:
    """Without the marks of sentences, Markdown and mathematics around it."""
    answer = answer.strip().strip("*_`").rstrip(".").strip().strip("*_`").strip()
    inline = _INLINE.fullmatch(answer)
    if inline:
        answer = (inline[1] if inline[1] is not None else inline[2]).strip().rstrip(".")
    return answer
