"""Numbers as a person would write them, for figures, pages and the terminal."""

from __future__ import annotations

import math
import re


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


def percent(share: float) -> str:
    """Return a share in whole hundredths: `29 %`."""
    return f"{100 * share:.0f} %"


def count(steps: float) -> str:
    """Return a number of steps: `1`, `250`, `10k`, `3M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if steps >= size:
            return f"{steps / size:.3g}{unit}"
    return f"{steps:.3g}"


SYMBOLS = (
    (r"(?<![\w.])[Rr]ho(?!\w|\.\w)", "ρ"),
    (r"(?<![\w.])beta([12])(?!\w|\.\w)", r"β\1"),
    (r"(?<![\w.])[cC]\+", "c⁺"),
    (r"(?:^|(?<=[\s\[^]))-(?=\d)", "−"),
    (r"->", "→"),
    (r"(?<=\d)%", " %"),
)


EXPONENT = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)e([+-]\d+)\b")
STEPS = re.compile(
    r"(?<=\bstep )\d{4,}\b|(?<=\bsteps )\d{4,}\b|(?<=\d to )\d{4,}\b(?!\.\d)|\b\d{4,}(?= (?:more )?steps\b)"
)
"""Counts of steps in a sentence: other numbers may be names."""


def typeset(text: str) -> str:
    """Return text with the symbols and numbers of the plain diagnosis as a page has them.

    >>> typeset("rho = -1 from step 12000 to 50000, lr = 1e-05")
    'ρ = −1 from step 12\u202f000 to 50\u202f000, lr = 10⁻⁵'
    """
    for pattern, symbol in SYMBOLS:
        text = re.sub(pattern, symbol, text)
    text = STEPS.sub(lambda found: whole(int(found[0])), text)
    return EXPONENT.sub(lambda found: f"{'' if found[1] == '1' else f'{found[1]}·'}{power_of_ten(int(found[2]))}", text)


def sentence(text: str) -> str:
    """Return text typeset, with a capital if it begins with a plain word (not ρ or b/a), and a full stop."""
    text = typeset(text.strip())
    word = text.split(" ", 1)[0]
    if word.isascii() and word.isalpha() and len(word) > 1:
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
