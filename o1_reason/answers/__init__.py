r"""Final answers: found in text, brought to a normal form (`canonical`), compared as mathematics (`equivalent`).

    extract_answer("... so the answer is $\frac{1}{2}$.")   # \frac{1}{2}
    canonical(r"\dfrac12")                                   # 1/2
    equivalent(r"\frac{\sqrt{2}}{2}", r"1/\sqrt{2}")         # True

`extract` finds, `normal` and `structure` compare as text, `mathematics` asks a process of its own (`mathworker`, with
`parsing` and `values`), in which sympy works.
"""

from .extract import extract_answer
from .mathematics import answer_key, answer_keys, classes, equivalent
from .normal import canonical

__all__ = ["answer_key", "answer_keys", "canonical", "classes", "equivalent", "extract_answer"]
