"""Two GPUs planned anew, exactly: which DNNs, which batch sizes, and who goes where."""

from __future__ import annotations

from jellyfish.scheduling.kernels.arrays import CROWD, NEAR, Ints, Scratch, State, Task
from jellyfish.scheduling.kernels.compiling import compiled

SEARCH_STEPS = 60  # per subset sum; with few distinct rates it ends earlier, exactly
PRESSED_STEPS = 1000  # where the last bit of room counts


@compiled
def subset(
    sizes: Ints, have: Ints, kinds: int, room: int, take: Ints, best: Ints, steps: int
) -> int:
    """Return the largest sum that `room` allows of `have[k]` times `sizes[k]`; which, in `best`."""
    total = 0
    for k in range(kinds):
        best[k] = have[k]
        total += sizes[k] * have[k]
    if total <= room:
        return total
    found, load = -1, 0
    for k in range(kinds):
        take[k] = min(have[k], (room - load) // sizes[k])
        load += take[k] * sizes[k]
    for _ in range(steps):
        if load > found:
            found = load
            best[:kinds] = take[:kinds]
            if load == room:
                break
        k = kinds - 2
        load -= take[kinds - 1] * sizes[kinds - 1]
        take[kinds - 1] = 0
        while k >= 0 and take[k] == 0:
            k -= 1
        if k < 0:
            break
        take[k] -= 1
        load -= sizes[k]
        for q in range(k + 1, kinds):
            take[q] = min(have[q], (room - load) // sizes[q])
            load += take[q] * sizes[q]
    return found


@compiled
def _ones(x: int) -> int:
    x = x - ((x >> 1) & 0x5555555555555555)
    x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (x * 0x0101010101010101) >> 56


@compiled
def index(task: Task, state: State, g: int) -> None:
    """Note which clients of GPU g each DNN and batch size could serve, and their frame rates."""
    count, batches = state.filled[g], task.capacity.shape[1]
    if count > CROWD:
        return
    bits, load = state.bits[g], state.load[g]
    bits[:] = 0
    load[:] = 0
    for a in range(count):
        i = state.members[g, a]
        for m in range(bits.shape[0]):
            bits[m, task.batch[i, m]] |= 1 << a
            load[m, task.batch[i, m]] += task.weight[i]
    for m in range(bits.shape[0]):
        for b in range(batches - 2, 0, -1):
            bits[m, b] |= bits[m, b + 1]
            load[m, b] += load[m, b + 1]


@compiled
def _gather(task: Task, state: State, g: int, h: int, extra: int, s: Scratch) -> tuple[int, int]:
    """Collect the clients of two GPUs; return how many, and of how many frame rates.

    `s.who` has those of g, then of h, then the extra one; `s.line` their places in it, by frame
    rate, largest first, as they stand on each GPU already.
    """
    first, n = state.filled[g], state.filled[g]
    s.who[:n] = state.members[g, :n]
    if h != g:
        n += state.filled[h]
        s.who[first:n] = state.members[h, : n - first]
    a, b, kinds, last = 0, first, 0, -1
    extra_weight = -1
    if extra >= 0:
        s.who[n] = extra
        extra_weight = task.weight[extra]
    for c in range(n + (extra >= 0)):
        at, size = n, extra_weight
        if a < first and task.weight[s.who[a]] >= size:
            at, size = a, task.weight[s.who[a]]
        if b < n and task.weight[s.who[b]] > size:
            at, size = b, task.weight[s.who[b]]
        if at == n:
            extra_weight = -1
        elif at < first:
            a += 1
        else:
            b += 1
        s.line[c] = at
        if size != last:
            s.sizes[kinds], s.bits[kinds], last = size, 0, size
            kinds += 1
        s.bits[kinds - 1] |= 1 << at
    return n + (extra >= 0), kinds


@compiled
def _offers(task: Task, state: State, g: int, h: int, extra: int, s: Scratch) -> int:
    """List what a GPU could be to the clients of two, most accurate first; return how many.

    Rows of `s.offers`: DNN, capacity, bits of whom it can serve, the sum of their rates, and the
    largest capacity so far.
    """
    dnns, batches = task.capacity.shape
    first = state.filled[g]
    n = first + state.filled[h]
    found, most = 0, 0
    for m in range(dnns - 1, -1, -1):
        before = 0
        for b in range(batches - 1, 0, -1):
            bits, load = state.bits[g, m, b], state.load[g, m, b]
            if h != g:
                bits |= state.bits[h, m, b] << first
                load += state.load[h, m, b]
            if extra >= 0 and task.batch[extra, m] >= b:
                bits |= 1 << (first if h == g else n)
                load += task.weight[extra]
            if bits != before:
                before = bits
                most = max(most, task.capacity[m, b])
                s.offers[found, 0], s.offers[found, 1] = m, task.capacity[m, b]
                s.offers[found, 2], s.offers[found, 3] = bits, load
                s.offers[found, 4] = most
                found += 1
    if task.accuracy[0] == task.accuracy[-1]:
        return _undominated(s.offers, found)
    return found


@compiled
def _undominated(offers: Ints, found: int) -> int:
    """Leave out offers that another is as good as, all DNNs being equally accurate."""
    kept = found  # those from here on
    for x in range(found - 1, -1, -1):
        room, can = offers[x, 1], offers[x, 2]
        for y in range(kept, found):
            if offers[y, 1] >= room and offers[y, 2] | can == offers[y, 2]:
                break
        else:
            kept -= 1
            offers[kept] = offers[x]
    most = 0
    for x in range(found - kept):
        offers[x] = offers[kept + x]
        most = max(most, offers[x, 1])
        offers[x, 4] = most
    return found - kept


@compiled
def _spread(task: Task, state: State, g: int) -> float:
    """Return the square of the share of GPU g that is free: room is best kept in one place."""
    if state.filled[g] == 0:
        return 1.0
    load, batch = 0, task.capacity.shape[1]
    for a in range(state.filled[g]):
        i = state.members[g, a]
        load += task.weight[i]
        batch = min(batch, task.batch[i, state.dnn[g]])
    return float((1.0 - load / task.capacity[state.dnn[g], batch]) ** 2)


@compiled
def _load(task: Task, state: State, g: int) -> int:
    load = 0
    for a in range(state.filled[g]):
        load += task.weight[state.members[g, a]]
    return load


@compiled
def _first_with_room(s: Scratch, x: int, offers: int, need: int) -> int:
    """Return the first offer from x on whose capacity, or that of one before, is `need`."""
    low, high = x, offers
    while low < high:
        middle = (low + high) // 2
        if s.offers[middle, 4] >= need:
            high = middle
        else:
            low = middle + 1
    return low


@compiled
def _search(
    task: Task,
    n: int,
    kinds: int,
    offers: int,
    worth: float,
    spread: float,
    lonely: bool,
    s: Scratch,
) -> tuple[int, int, float]:
    """Return the two offers that earn most with all `n` clients served, -1 if none beats `worth`.

    Of equal ones, that with the room in one place. `s.keep` says how many clients of each size
    that could go to both go to the first.
    """
    full = (1 << n) - 1
    total = 0
    for a in range(n):
        total += task.weight[s.who[a]]
    near = NEAR * (1.0 + abs(worth))
    steps = PRESSED_STEPS if task.accuracy[0] == task.accuracy[-1] else SEARCH_STEPS
    first, second = -1, -1
    for x in range(offers):
        dnn, room, can, can_load = s.offers[x, 0], s.offers[x, 1], s.offers[x, 2], s.offers[x, 3]
        most = min(room, can_load)
        if task.accuracy[dnn] * total < worth - near:
            break
        for y in range(_first_with_room(s, x, offers, total - most), offers):
            other = task.accuracy[s.offers[y, 0]]
            if task.accuracy[dnn] * most + other * (total - most) < worth - near:
                break
            if most == total and y > x:
                break  # the first serves all; whatever the second is
            must = total - s.offers[y, 3]  # who cannot go to the second
            other_room = 0 if lonely else s.offers[y, 1]
            if must > room or total - can_load > other_room or room + other_room < total:
                continue
            if can | s.offers[y, 2] != full:
                continue
            for k in range(kinds):
                s.have[k] = _ones(can & s.offers[y, 2] & s.bits[k])
            load = must + subset(s.sizes, s.have, kinds, room - must, s.take, s.best, steps)
            if total - load > other_room:
                continue
            earned = task.accuracy[dnn] * load + other * (total - load)
            if earned < worth - near:
                continue
            free = 1.0 if load == 0 else (1.0 - load / room) ** 2
            free += 1.0 if load == total else (1.0 - (total - load) / other_room) ** 2
            if earned > worth + near or free > spread + 1e-9:
                first, second, worth, spread = x, y, max(worth, earned), free
                s.keep[:kinds] = s.best[:kinds]
    return first, second, worth


@compiled
def _settle(task: Task, state: State, g: int, h: int, x: int, y: int, n: int, s: Scratch) -> None:
    """Put the clients where `_search` found that they earn most."""
    can, other_can = s.offers[x, 2], s.offers[y, 2]
    state.dnn[h], state.dnn[g] = s.offers[y, 0], s.offers[x, 0]
    here, there, kind = 0, 0, 0
    for c in range(n):
        a = s.line[c]
        while s.bits[kind] >> a & 1 == 0:
            kind += 1
        to_first = other_can >> a & 1 == 0
        if not to_first and can >> a & 1 and s.keep[kind] > 0:
            s.keep[kind] -= 1
            to_first = True
        if to_first:
            state.members[g, here] = s.who[a]
            here += 1
        else:
            state.members[h, there] = s.who[a]
            there += 1
    state.filled[h], state.filled[g] = there, here


@compiled
def replan_exactly(task: Task, state: State, g: int, h: int, extra: int, s: Scratch) -> bool:
    """Plan two GPUs anew, or one if `h` is `g`, with client `extra` unless that is negative.

    They have CROWD clients at most. Tell whether anything changed; then they are to be indexed.
    """
    lonely = g == h
    worth, spread = -1.0, -1.0
    if extra < 0:
        worth = task.accuracy[state.dnn[g]] * _load(task, state, g)
        spread = _spread(task, state, g) + (1.0 if lonely else _spread(task, state, h))
        if not lonely:
            worth += task.accuracy[state.dnn[h]] * _load(task, state, h)
    n, kinds = _gather(task, state, g, h, extra, s)
    offers = _offers(task, state, g, h, extra, s)
    x, y, _ = _search(task, n, kinds, offers, worth, spread, lonely, s)
    if x < 0:
        return False
    _settle(task, state, g, h, x, y, n, s)
    return True
