"""Numbers as a person would write them, for figures, pages and the terminal."""

from __future__ import annotations

import math


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


def interval(low: float, high: float) -> str:
    """Return `[low, high]`; an interval without both ends says so."""
    if math.isnan(low) or math.isnan(high):
        return "–"
    if math.isinf(low) and math.isinf(high):
        return "(−∞, ∞)"
    left = f"({number(low, 2)}" if math.isinf(low) else f"[{number(low, 2)}"
    return f"{left}, {number(high, 2)})" if math.isinf(high) else f"{left}, {number(high, 2)}]"


def count(steps: float) -> str:
    """Return a number of steps: `1`, `250`, `10k`, `3M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if steps >= size:
            return f"{steps / size:.3g}{unit}"
    return f"{steps:.3g}"


def shorten(name: str, length: int = 26) -> str:
    """Return a name that fits beside a figure, cut in the middle: its ends tell a tensor apart."""
    return name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-(length // 2) :]}"
