"""What stays as it is: GPUs with the DNNs that they hold, and clients on their GPUs.

Which GPU takes which group of clients is all the same to effectiveness and accuracy, and so is
which of two clients of one frame rate goes where. Among such equals the fewest swaps of DNNs come
first, then the fewest moves of clients.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from jellyfish.scheduling.problem import Problem

Group = tuple[int, Sequence[int]]  # a DNN, and the clients that one GPU serves with it


def groups_now(problem: Problem) -> dict[int, Group]:
    """Return what each GPU does now, of those known to serve somebody."""
    members = defaultdict(list)
    for client, gpu in enumerate(problem.initial_gpus):
        if gpu is not None:
            members[gpu].append(client)
    return {gpu: (problem.start_dnns[gpu], members[gpu]) for gpu in sorted(members)}


def gpus_of(problem: Problem, groups: Sequence[Group]) -> list[int]:
    """Return a GPU for each group.

    As many as can be hold the group's DNN; after that, they serve the group's clients.
    """
    found: dict[int, int] = {}  # by group
    left = dict.fromkeys(range(problem.gpus))
    common = _in_common(problem, groups)
    running = problem.start_dnns
    _match(((a, gpu) for a, gpu in common if groups[a][0] == running[gpu]), found, left)
    holding: dict[int, list[int]] = defaultdict(list)
    for gpu in reversed(left):
        holding[running[gpu]].append(gpu)
    for a, (dnn, _) in enumerate(groups):
        if a not in found and holding[dnn]:
            found[a] = holding[dnn].pop()
            del left[found[a]]
    _match(common, found, left)
    spare = iter(left)
    return [found[a] if a in found else next(spare) for a in range(len(groups))]


def _in_common(problem: Problem, groups: Sequence[Group]) -> list[tuple[int, int]]:
    """Return groups with GPUs that serve some of their clients now, most of them first."""
    if not problem.initial_gpus:
        return []
    now = problem.initial_gpus
    common = Counter((a, now[i]) for a, (_, members) in enumerate(groups) for i in members)
    known = [(-n, a, gpu) for (a, gpu), n in common.items() if gpu is not None]
    return [(a, gpu) for _, a, gpu in sorted(known)]


def _match(pairs: Iterable[tuple[int, int]], found: dict[int, int], left: dict[int, None]) -> None:
    for a, gpu in pairs:
        if a not in found and gpu in left:
            found[a] = gpu
            del left[gpu]


def sent_home(
    problem: Problem, groups: Sequence[Group], where: Sequence[int], batches: Sequence[int]
) -> list[Group]:
    """Return `groups` with clients of one frame rate exchanged, so that more stay on their GPUs.

    Args:
        problem: who is where now.
        groups: who goes where.
        where: the GPU of each group.
        batches: what each needs to keep up; only clients whose deadlines allow it may come.
    """
    at = _Whereabouts(problem, groups, where, batches)
    for client, home in enumerate(problem.initial_gpus):
        if home is not None:
            at.send(client, home)
    members: dict[int, list[int]] = {gpu: [] for gpu in where}
    for client, gpu in enumerate(at.gpu):
        if gpu is not None:
            members[gpu].append(client)
    return [(dnn, members[gpu]) for gpu, (dnn, _) in zip(where, groups, strict=True)]


class _Whereabouts:
    """Which GPU each client is to go to, and on each GPU those who come from elsewhere."""

    def __init__(
        self,
        problem: Problem,
        groups: Sequence[Group],
        where: Sequence[int],
        batches: Sequence[int],
    ) -> None:
        self.gpu: list[int | None] = [None] * problem.clients
        self._home = problem.initial_gpus
        self._fps: list[float] = problem.fps.tolist()
        self._largest_batch = problem.largest_batch
        self._runs = {
            gpu: (dnn, batch) for gpu, (dnn, _), batch in zip(where, groups, batches, strict=True)
        }
        self._strangers: dict[tuple[int, float], list[int]] = defaultdict(list)
        for gpu, (_, members) in zip(where, groups, strict=True):
            for client in members:
                self._put(client, gpu)

    def send(self, client: int, home: int) -> None:
        """Exchange `client` with somebody at its `home` who is not at home there."""
        here = self.gpu[client]
        if here == home or not self._able(client, home):
            return
        for other in self._strangers[home, self._fps[client]]:
            # Nobody who is served now makes room for somebody who would go without.
            if self._able(other, here) if here is not None else self._home[other] is None:
                self._take(client)
                self._take(other)
                self._put(client, home)
                self._put(other, here)
                return

    def _able(self, client: int, gpu: int) -> bool:
        if gpu not in self._runs:
            return False
        dnn, batch = self._runs[gpu]
        return bool(self._largest_batch[client, dnn] >= batch)

    def _put(self, client: int, gpu: int | None) -> None:
        self.gpu[client] = gpu
        if gpu is not None and self._home[client] != gpu:
            self._strangers[gpu, self._fps[client]].append(client)

    def _take(self, client: int) -> None:
        gpu = self.gpu[client]
        if gpu is not None:
            self._strangers[gpu, self._fps[client]].remove(client)
