"""Summarize a trace: a table with a row per parameter tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .trace import TensorInfo, Trace

if TYPE_CHECKING:
    import pandas

Array = NDArray[np.float64]
Cell = str | int | float
Row = dict[str, Cell]

COLUMNS = {
    "tensor": "its name",
    "formula": "the formula its stepsize is read by; - where there is none",
    "watched": "share of its coordinates that are watched",
    "steps": "steps it took",
    "e_p1": "1 % quantile of the stepsize at the end",
    "e_p50": "its median",
    "e_p99": "its 99 % quantile",
    "growth": "median stepsize at the end over that of the first record",
    "b/a": "variance ratio over the last half of the run",
    "c+/a": "bias ratio over the last half",
    "rising": "share of coordinate-steps with a rising stepsize, last half",
    "rms_mean": "root mean square of RMS_t, last half",
    "rms_max": "largest RMS_t of the run",
    "eps_bound": "share of coordinate-steps that eps decides, last half",
    "update/weight": "size of the step over that of the parameter, at the end",
    "alignment": "cosine of the step and the negative gradient, at the end",
}


@dataclass(frozen=True)
class Summary:
    """A table with a row per tensor, in the columns of `COLUMNS`; NaN where a tensor has no such number."""

    rows: list[Row]

    def __str__(self) -> str:
        """Return the table as aligned plain text, with the formulas of the stepsizes and what the columns are below."""
        columns = [name for name in COLUMNS if name != "formula"]
        table = [columns, *([_cell(row[name]) for name in columns] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(
                text.rjust(width) if column else text.ljust(width)
                for column, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in table
        ]
        formulas = dict.fromkeys(str(row["formula"]) for row in self.rows)
        width = max(map(len, columns))
        legend = [f"{name.ljust(width)}  {COLUMNS[name]}" for name in columns]
        return "\n".join([*lines, *formulas, "", *legend])

    def to_pandas(self) -> pandas.DataFrame:
        """Return the table as a DataFrame indexed by tensor."""
        import pandas

        return pandas.DataFrame(self.rows, columns=list(COLUMNS)).set_index("tensor")


def summarize(trace: Trace) -> Summary:
    """Return the summary of a run; ratios and shares are over its last half, past the start-up."""
    middle = int(np.searchsorted(trace.steps, trace.steps[-1] / 2)) if len(trace.steps) else 0
    return Summary([_row(trace, tensor, p, middle) for p, tensor in enumerate(trace.tensors)])


def _row(trace: Trace, tensor: TensorInfo, p: int, middle: int) -> Row:
    def at_end(name: str) -> float:
        column = trace.column(name)[:, p]
        return float(column[-1]) if len(column) else float("nan")

    def newest(name: str) -> float:
        column = trace.column(name)[:, p]
        known = column[~np.isnan(column)]
        return float(known[-1]) if len(known) else float("nan")

    def over_half(name: str) -> float:
        column = trace.column(name)[:, p]
        if len(column) == 0:
            return float("nan")
        with np.errstate(invalid="ignore"):
            return float(column[-1] - column[middle]) if middle < len(column) - 1 else float(column[-1])

    return {
        "tensor": tensor.name,
        "formula": tensor.formula or "-",
        "watched": _ratio(tensor.watched, tensor.numel),
        "steps": int(np.nan_to_num(at_end("steps"))),
        "e_p1": at_end("e_p1"),
        "e_p50": at_end("e_p50"),
        "e_p99": at_end("e_p99"),
        "growth": _growth(trace.column("e_p50")[:, p]),
        "b/a": _ratio(over_half("b"), over_half("a")),
        "c+/a": _ratio(over_half("c_plus"), over_half("a")),
        "rising": _ratio(over_half("rising"), over_half("compared")),
        "rms_mean": _ratio(over_half("rms2"), over_half("steps")) ** 0.5,
        "rms_max": at_end("rms_max"),
        "eps_bound": _ratio(over_half("eps_bound"), over_half("active")),
        "update/weight": _ratio(newest("update_rms"), at_end("weight_rms")),
        "alignment": newest("alignment"),
    }


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else float("nan")


def _growth(median: Array) -> float:
    finite = median[np.isfinite(median)]
    return _ratio(float(finite[-1]), float(finite[0])) if len(finite) else float("nan")


def _cell(value: Cell) -> str:
    if not isinstance(value, float):
        return str(value)
    return "-" if math.isnan(value) else f"{value:.3g}" if value < 1e5 else f"{value:.3e}"
