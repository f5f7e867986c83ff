"""A plan for a problem of your own: `python -m experiment.plan PROBLEM.json`.

The formats are those of jellyfish.files.problems. Without a file, or with `-`, each line of the
standard input is a problem, and each line of the output its plan, or `{"error": ...}`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jellyfish.errors import DataError, JellyfishError
from jellyfish.files.problems import plan_as_json, problem_from_json
from jellyfish.scheduling.problem import Budget, Plan, Problem
from jellyfish.scheduling.solvers import SOLVERS, solver, warm


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a plan for each problem; return 0, or 1 if a problem was none."""
    options = _parser().parse_args(arguments)
    warm(options.solver)
    failed = False
    for where, text in _texts(options.problem):
        try:
            answer = _answer(text, options)
        except JellyfishError as error:
            failed = True
            print(f"{where}: {error}", file=sys.stderr)
            if where == options.problem:
                _hint(text)
                break
            answer = {"error": str(error)}
        print(json.dumps(answer, allow_nan=False), flush=True)
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiment.plan", description=__doc__)
    parser.add_argument("problem", nargs="?", default="-", help="a JSON file; - for JSON lines")
    parser.add_argument("--solver", choices=SOLVERS, default=next(iter(SOLVERS)))
    parser.add_argument("--time-limit-ms", type=_positive, help="plans only get better with time")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _texts(problem: str) -> Iterator[tuple[str, str]]:
    """Yield every problem's text and where it came from."""
    if problem != "-":
        try:
            yield problem, Path(problem).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SystemExit(f"{problem}: {error}") from None
        return
    for number, line in enumerate(sys.stdin, start=1):
        if line.strip():
            yield f"line {number}", line


def _hint(text: str) -> None:
    """Tell who named a file of JSON lines where these go."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and all(line.startswith("{") for line in lines):
        print("a file holds one problem; lines go to the standard input", file=sys.stderr)


def _answer(text: str, options: argparse.Namespace) -> dict[str, Any]:
    try:
        problem = problem_from_json(json.loads(text))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"no JSON: {error}") from None
    start = time.perf_counter()
    plan, bound = _solve(problem, options, start)
    return plan_as_json(plan, bound=bound, solve_ms=(time.perf_counter() - start) * 1000)


def _solve(
    problem: Problem, options: argparse.Namespace, start: float
) -> tuple[Plan, float | None]:
    budget: Budget = None
    if options.time_limit_ms is not None:
        end = start + options.time_limit_ms / 1000
        budget = lambda: time.perf_counter() < end  # noqa: E731 - a name for it says no more
    if options.solver == "optimum":
        from jellyfish.scheduling import optimum

        proof = optimum.prove(problem, budget)
        return proof.plan, proof.accuracy_bound
    return solver(options.solver)(problem, options.seed, budget), None


def _keep_output_clean() -> None:
    """Send what libraries print (HiGHS: a banner) to the standard error; plans go where asked."""
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)


def _end_like_a_filter() -> None:
    """End without a word when the reader of the plans ends (`| head`), or on Ctrl-C."""
    for number in (signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    _end_like_a_filter()
    _keep_output_clean()
    sys.exit(main())
