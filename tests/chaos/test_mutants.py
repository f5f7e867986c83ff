"""Every mutant of the simulation of faults still has something to replace."""

import pytest

from tests.chaos.mutants import Mutant, every


@pytest.mark.parametrize("mutant", every(), ids=lambda mutant: mutant.name)
def test_a_mutant_applies_and_goes_away(mutant: Mutant) -> None:
    owner, attribute = mutant._owner
    original = vars(owner)[attribute]
    with mutant.applied():
        assert vars(owner)[attribute] is not original
    assert vars(owner)[attribute] is original


def test_a_function_that_takes_other_arguments_is_told() -> None:
    """Its calls would fail whatever it does, and the seeds would seem to find it."""
    mutant = Mutant("nothing", "server.pipe:LoopPipe._write", lambda _: lambda pipe: None)
    with pytest.raises(TypeError, match="takes other arguments"), mutant.applied():
        pass


def test_there_are_enough() -> None:
    assert len({mutant.name for mutant in every()}) >= 15


def test_a_missing_attribute_is_told() -> None:
    with pytest.raises(AttributeError, match=r"no server\.engine:Engine\.gone"):
        Mutant("nothing", "server.engine:Engine.gone", lambda it: it)._owner  # noqa: B018
