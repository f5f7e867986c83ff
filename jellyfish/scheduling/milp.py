"""Integer programs, row by row, solved by HiGHS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import highspy
import numpy as np
from numpy.typing import NDArray

from jellyfish.scheduling.problem import Budget

Terms = Mapping[int, float]  # coefficient by variable


@dataclass(frozen=True)
class Answer:
    """What HiGHS found: values (None where nothing feasible was), a bound, and whether it ended."""

    values: NDArray[np.float64] | None
    bound: float
    proven: bool


@dataclass
class IntegerProgram:
    """Variables are whole numbers from 0 to `upper`; rows say at most `limits`."""

    upper: list[float] = field(default_factory=list)
    rows: list[Terms] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)

    def variable(self, upper: float) -> int:
        """Add a variable and return its index."""
        self.upper.append(upper)
        return len(self.upper) - 1

    def at_most(self, terms: Terms, limit: float) -> None:
        """Add the row: the sum of `terms` is at most `limit`."""
        self.rows.append(dict(terms))
        self.limits.append(limit)

    def at_least(self, terms: Terms, limit: float) -> None:
        """Add the row: the sum of `terms` is at least `limit`."""
        self.at_most({i: -value for i, value in terms.items()}, -limit)

    def maximize(self, worth: Terms, budget: Budget) -> Answer:
        """Return the best values, found until `budget` (nodes, or asked now and then) ends."""
        if not self.upper:
            return Answer(np.zeros(0), 0.0, True)
        # HiGHS takes what is below its tolerances for nothing: the largest worth becomes 1.
        scale = max(worth.values(), default=0.0) or 1.0
        highs = _highs(budget)
        highs.passModel(self._lp({i: value / scale for i, value in worth.items()}))
        highs.run()
        info = highs.getInfo()
        proven = highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
        found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
        values = np.round(np.asarray(highs.getSolution().col_value)) if found else None
        return Answer(values, float(info.mip_dual_bound) * scale, proven)

    def _lp(self, worth: Terms) -> highspy.HighsLp:
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(self.upper), len(self.rows)
        lp.sense_ = highspy.ObjSense.kMaximize
        cost = np.zeros(len(self.upper))
        cost[list(worth)] = list(worth.values())
        lp.col_cost_ = cost
        lp.col_lower_, lp.col_upper_ = np.zeros(len(self.upper)), np.array(self.upper, float)
        lp.row_lower_ = np.full(len(self.rows), -highspy.kHighsInf)
        lp.row_upper_ = np.array(self.limits, float)
        lp.integrality_ = [highspy.HighsVarType.kInteger] * len(self.upper)
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.cumsum([0, *map(len, self.rows)], dtype=np.int32)
        lp.a_matrix_.index_ = np.array([i for row in self.rows for i in row], np.int32)
        lp.a_matrix_.value_ = np.array([v for row in self.rows for v in row.values()], float)
        return lp


def _highs(budget: Budget) -> highspy.Highs:
    highs = highspy.Highs()
    highs.silent()
    options = {"threads": 1, "mip_rel_gap": 0.0, "mip_abs_gap": 1e-7}
    for name, value in options.items():
        highs.setOptionValue(name, value)
    if isinstance(budget, int):
        highs.setOptionValue("mip_max_nodes", budget)
    elif budget is not None:
        keep_going = budget

        def look(event: highspy.HighsCallbackEvent) -> None:
            event.interrupt(not keep_going())

        highs.cbMipInterrupt.subscribe(look)
    return highs
