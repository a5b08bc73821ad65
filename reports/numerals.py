"""Numbers as a person would write them, for figures, pages and the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import takewhile
from unicodedata import category

UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Controls, marks of direction, what is no character, breaks of lines."""


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as a person would write it: `0.012`, `4.1·10⁻⁹`, `∞`; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if -4 <= exponent < 6:
        text = f"{value:.{max(digits - 1 - exponent, 0)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        text = power_of_ten(int(power)) if mantissa == "1" else f"{mantissa}·{power_of_ten(int(power))}"
    return text.replace("-", "−")


def power_of_ten(exponent: int) -> str:
    """Return 10ⁿ in plain characters."""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def fixed(value: float) -> str:
    """Return a ratio or a slope with the digits that can be meant: `0.95`, `−22.8`, `−150`."""
    if not math.isfinite(value):
        return number(value)
    places = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{round(value, places) + 0.0:.{places}f}".replace("-", "−")  # + 0.0: no minus before a zero


def interval(low: float, high: float) -> str:
    """Return `[low, high]`, with round brackets at an unbounded end."""
    if math.isnan(low) or math.isnan(high):
        return "–"
    return f"{'(' if math.isinf(low) else '['}{fixed(low)}, {fixed(high)}{')' if math.isinf(high) else ']'}"


def whole(value: float) -> str:
    """Return an integer with its digits in groups of three: `52 569`."""
    return f"{value:,.0f}".replace(",", "\u202f")


def count(steps: float) -> str:
    """Return a number of steps: `1`, `250`, `10k`, `3M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if steps >= size:
            return f"{steps / size:.3g}{unit}"
    return f"{steps:.3g}"


def shorten(name: str, length: int = 26) -> str:
    """Return a name that fits beside a figure, cut in the middle: its ends tell a tensor apart.

    A dot stands for what cannot be printed, as control characters and marks that turn the direction of writing.
    """
    if not name.isprintable():
        name = "".join("·" if category(c) in UNPRINTABLE else c for c in name)
    return name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-(length // 2) :]}"


def tell_apart(names: Sequence[str], length: int) -> list[str]:
    """Return names that fit in `length`: where one is longer, the dotted parts that all share are left out."""
    if len(names) < 2 or max(map(len, names)) <= length:
        return [shorten(name, length) for name in names]
    parts = [name.split(".") for name in names]
    head = _shared(parts)
    rest = [part[head:] for part in parts]
    tail = _shared([part[::-1] for part in rest]) if max(len(".".join(part)) for part in rest) >= length else 0
    kept = [".".join(part[: len(part) - tail]) for part in rest]
    return [shorten("…" * (head > 0) + name + "…" * (tail > 0), length) for name in kept]


def _shared(parts: Sequence[Sequence[str]]) -> int:
    """Count the leading parts that are the same in all names; each name keeps at least its last."""
    heads = zip(*(part[:-1] for part in parts), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, heads))


SYMBOLS = (
    (r"(?<![\w.])[Rr]ho(?!\w|\.\w)", "ρ"),
    (r"(?<![\w.])beta([12])(?!\w|\.\w)", r"β\1"),
    (r"(?<![\w.])[cC]\+", "c⁺"),
    (r"(?<=[\s\[^])-(?=\d)", "−"),
    (r"->", "→"),
)


def typeset(text: str) -> str:
    """Return text with the spelled-out symbols of the plain diagnosis as themselves: rho = -1 is ρ = −1."""
    for pattern, symbol in SYMBOLS:
        text = re.sub(pattern, symbol, text)
    return re.sub(r"(?<=\d)e([+-]\d+)\b", lambda found: f"·{power_of_ten(int(found[1]))}", text)


def sentence(text: str) -> str:
    """Return text typeset, with a capital if it begins with a plain word (not ρ or b/a), and a full stop."""
    text = typeset(text.strip())
    word = text.split(" ", 1)[0]
    if word.isascii() and word.isalpha() and len(word) > 1:
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
