"""What the config asks of the simulations of the scheduler, and which instances count."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiment.planning import instance
from experiment.planning_kept import kept, mapped_share
from experiment.planning_study import (
    AT_ONCE,
    QUALITY,
    TIMINGS,
    WORLD,
    Contender,
    Size,
    Study,
    study,
    units,
)
from jellyfish.errors import ConfigError
from jellyfish.scheduling.mapping import map_clients
from jellyfish.scheduling.solvers import SOLVERS
from scripts import scenario

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    return value


def test_the_published_sizes_are_asked_for(config: dict[str, Any]) -> None:
    quality, timings = study(config, QUALITY), study(config, TIMINGS)
    assert {(size.gpus, size.clients // size.gpus) for size in quality.sizes} == {
        (gpus, per) for gpus in (2, 4, 8, 16) for per in (4, 6, 8, 10)
    }
    assert quality.contenders[-1] == Contender("optimum", "optimum", limit_s=120)
    assert timings.sizes[-1] == Size(256, 2560)
    assert {"paper", "jellyfish"} <= {one.solver for one in quality.contenders}


@pytest.mark.parametrize(
    ("stage", "key", "value", "said"),
    [
        ("quality", "bogus", 1, r"planning\.quality: unknown key 'bogus'; there are: clients_per"),
        ("quality", "gpus", [0], r"planning\.quality\.gpus\[0\]: 0 is less than"),
        ("quality", "gpus", [2, 2], r"planning\.quality\.gpus: .* non-unique"),
        ("timings", "instances", 0, r"planning\.timings\.instances: 0 is less than"),
        ("timings", "proof_s", 1, r"planning\.timings: unknown key 'proof_s'"),
        ("timings", "solvers", [], r"planning\.timings\.solvers: \[\] should be non-empty"),
        ("timings", "solvers", [{"name": "a", "solver": "best"}], r"solver: 'best' is not one of"),
        (
            "timings",
            "solvers",
            [{"name": "a", "solver": "paper", "steps": 1, "limit_s": 1}],
            r"solvers\[0\]: .* steps or limit_s, not both",
        ),
        (
            "timings",
            "solvers",
            [{"name": "a", "solver": "paper"}, {"name": "a", "solver": "jellyfish"}],
            r"planning\.timings\.solvers: two are called 'a'",
        ),
        ("quality", "solvers", [{"name": "optimum", "solver": "paper"}], r"two are called 'optim"),
    ],
)
def test_what_cannot_be_asked_is_named(
    config: dict[str, Any], stage: str, key: str, value: Any, said: str
) -> None:
    changed = copy.deepcopy(config)
    changed["planning"][stage][key] = value
    with pytest.raises(ConfigError, match=said):
        scenario.load(changed, ROOT)


def test_the_schema_knows_every_solver() -> None:
    schema = yaml.safe_load((ROOT / scenario.SCHEMA).read_text())
    names = schema["$defs"]["solvers"]["items"]["properties"]["solver"]["enum"]
    assert set(names) == set(SOLVERS)


def asked(stage: str, instances: int, first_seed: int = 0) -> Study:
    return Study(stage, (Size(2, 12),), (), instances, first_seed)


@pytest.mark.parametrize("stage", WORLD)
def test_instances_count_whose_clients_are_mapped_at_first(stage: str) -> None:
    size, least = Size(2, 12), {QUALITY: 12, TIMINGS: 9}[stage]
    mapped = {}
    for seed in range(40):
        problem = instance(2, 12, seed)
        plan = map_clients(problem, problem.start_dnns)
        mapped[seed] = sum(gpu is not None for gpu in plan.clients)
        assert mapped_share(size, seed) == pytest.approx(mapped[seed] / 12)
    good = [seed for seed, count in mapped.items() if count >= least]
    found = kept(asked(stage, 10), size)
    assert list(found.seeds) == good[:10]
    assert found.rejected == good[9] + 1 - 10 > 0
    assert kept(asked(stage, 3), size).seeds == found.seeds[:3]


def test_a_size_that_no_instance_fits_is_told() -> None:
    with pytest.raises(ConfigError, match=r"planning\.quality: 1000 instances of 1x40 .* fewer"):
        kept(asked(QUALITY, 1), Size(1, 40))


def test_more_instances_keep_the_units_that_are_full() -> None:
    paper, size = Contender("paper", "paper"), Size(2, 12)
    some, more = (
        units(asked(QUALITY, n), size, paper, tuple(range(n))) for n in (AT_ONCE + 3, 4 * AT_ONCE)
    )
    assert [len(unit.seeds) for unit in some] == [AT_ONCE, 3]
    assert some[0].key == more[0].key
    assert len({unit.key for unit in [*some, *more]}) == 5


@pytest.mark.parametrize(
    "other",
    [
        Contender("paper", "paper", steps=3),
        Contender("paper", "paper", limit_s=3),
        Contender("paper", "jellyfish"),
    ],
)
def test_a_unit_is_named_by_what_its_rows_depend_on(other: Contender) -> None:
    def key(contender: Contender, stage: str = QUALITY) -> str:
        (unit,) = units(asked(stage, 2), Size(2, 12), contender, (1, 2))
        return unit.key

    paper = Contender("paper", "paper")
    assert key(other) != key(paper) != key(paper, TIMINGS)
    assert key(Contender("as published", "paper")) == key(paper)
