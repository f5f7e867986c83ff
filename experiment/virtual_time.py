"""An asyncio event loop whose clock jumps to the next timer: hours of serving in seconds.

The engine and the client session run on it unchanged. Nothing outside the loop can wake it, so
a loop with nothing to do and nothing scheduled is a deadlock and says so instead of hanging; one
that has ever more to do at one and the same instant says so, too.

Simulations of faults use three more things that it has: time that passes while code runs (`stall`),
a seeded order of what is due at the same instant, and sockets that are not the operating system's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from heapq import heapify, heappop, heappush
from random import Random
from typing import Any, NoReturn, Protocol, TypeVar

from jellyfish.errors import JellyfishError

T = TypeVar("T")

INSTANT_S = 1e-9  # timers that close together are one instant: rounding must not order them
MANY_IDLE = 100  # cancelled timers, before the heap is rid of them
FIRST_FD = 1 << 20  # of simulated sockets
ENDLESS = 100_000  # rounds of callbacks at one instant


class DeadlockError(JellyfishError):
    """Every task of a virtual-time loop waits for something that nothing will ever do."""


class LivelockError(JellyfishError):
    """Callbacks call for callbacks without end, and time stands still."""


class Watched(Protocol):
    """A simulated socket: the loop tells it who waits for it."""

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        """Call `callback` in the loop while there is something to read; None for nobody."""

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        """Call `callback` in the loop while there is room to write; None for nobody."""


class _Task(asyncio.Task[Any]):
    """A task that knows its number, from 1 on."""

    number: int


class _Call(asyncio.TimerHandle):
    """A handle that is quickly made: no traceback is kept, and it runs in no context of its own."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._callback, self._args, self._loop, self._context = callback, args, loop, None
        self._cancelled, self._scheduled = False, True
        self._repr = self._source_traceback = None
        self._when = when

    def cancel(self) -> None:
        """Do not call; see asyncio."""
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None  # type: ignore[assignment]  # free what they hold
            self._loop._timer_handle_cancelled(self)  # type: ignore[attr-defined]


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that starts at 0 s and whose time moves only from timer to timer.

    What asyncio does between two callbacks is much of what a simulation costs, so the loop's inner
    part is its own: no selector is asked, handles are quickly made, and the heap holds tuples,
    which compare fast. Timers for one time fire in the order in which they were set.

    Args:
        seed: what is due at the same instant then happens in an order drawn by this seed, which
            is the same in every process.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._now = 0.0
        self._rng = None if seed is None else Random(seed)
        self._tasks = 0  # so far
        self._rounds = 0  # of callbacks at this instant
        self._sockets: dict[int, Watched] = {}
        self._timers: list[tuple[float, int, _Call]] = []
        self._set = 0  # timers so far
        self._idle_timers = 0  # cancelled, but still in the heap
        super().__init__()
        if seed is not None:
            self.set_task_factory(_numbered)  # type: ignore[arg-type]

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def stall(self, seconds: float) -> None:
        """Let time pass as if the running code took so long: what falls due meanwhile is late."""
        self._now += seconds

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """Call `callback` with `args` before time moves on; see asyncio."""
        handle = _Call(self._now, callback, args, self)
        handle._scheduled = False  # it is no timer
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Call `callback` with `args` at `when` on this loop's clock; see asyncio."""
        handle = _Call(when, callback, args, self)
        self._set += 1
        heappush(self._timers, (when, self._set, handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Call `callback` with `args` in `delay` seconds; see asyncio."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if handle._scheduled:  # type: ignore[attr-defined]  # and not one that has fired
            self._idle_timers += 1

    def _run_once(self) -> None:
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]
        timers = self._timers
        if not ready:
            self._jump()
        end_s = self._now + INSTANT_S
        while timers and timers[0][0] <= end_s:
            timer = heappop(timers)[2]
            timer._scheduled = False
            if timer._cancelled:
                self._idle_timers -= 1
            else:
                ready.append(timer)
        if self._rng is not None:
            self._rounds += 1
            if self._rounds > ENDLESS:
                self._give_up(ready)
            if len(ready) > 1:
                _shuffle(ready, self._rng)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            try:  # not in a context of its own: nothing here keeps anything in one
                handle._callback(*handle._args)  # type: ignore[attr-defined]
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                message = f"exception in callback {handle!r}"
                self.call_exception_handler(
                    {"message": message, "exception": error, "handle": handle}
                )

    def _give_up(self, ready: deque[asyncio.Handle]) -> NoReturn:
        self._rounds = 0  # for what is cancelled now
        raise LivelockError(f"no end of callbacks at {self._now:.6f} s: {ready[0]!r}")

    def _jump(self) -> None:
        """Move time to the next timer that was not cancelled.

        Raises:
            DeadlockError: there is none.
        """
        timers = self._timers
        if self._idle_timers > MANY_IDLE and 2 * self._idle_timers > len(timers):
            timers[:] = [entry for entry in timers if not entry[2]._cancelled]
            heapify(timers)
            self._idle_timers = 0
        while timers and timers[0][2]._cancelled:
            heappop(timers)
            self._idle_timers -= 1
        if not timers:
            raise DeadlockError(f"nothing is scheduled at {self._now:.6f} s; {self._waiting()}")
        self._now = max(self._now, timers[0][0])
        self._rounds = 0

    def _waiting(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        return "these tasks wait: " + "; ".join(_describe(task) for task in tasks)

    def register(self, sock: Watched) -> int:
        """Return a file descriptor for a simulated socket: no number that the system would give."""
        fd = FIRST_FD + len(self._sockets)
        self._sockets[fd] = sock
        return fd

    def add_reader(  # type: ignore[override]
        self, fd: int, callback: Callable[..., object], *args: Any
    ) -> None:
        """Call `callback` with `args` while simulated socket `fd` can be read; see asyncio."""
        self._sockets[fd].on_readable(partial(callback, *args))

    def remove_reader(self, fd: int) -> bool:  # type: ignore[override]
        """Stop that; see asyncio."""
        self._sockets[fd].on_readable(None)
        return True

    def add_writer(  # type: ignore[override]
        self, fd: int, callback: Callable[..., object], *args: Any
    ) -> None:
        """Call `callback` with `args` while simulated socket `fd` can be written; see asyncio."""
        self._sockets[fd].on_writable(partial(callback, *args))

    def remove_writer(self, fd: int) -> bool:  # type: ignore[override]
        """Stop that; see asyncio."""
        self._sockets[fd].on_writable(None)
        return True

    def run_in_executor(self, *_: Any) -> NoReturn:  # type: ignore[override]
        """Refuse: a thread would bring the wall clock in.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("virtual time has no executors: threads run on the wall clock")


def _describe(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack(limit=1)
    at = f" at {frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else ""
    return f"{task.get_name()}{at}"


def _numbered(loop: VirtualTimeLoop, coro: Coroutine[Any, Any, T], **options: Any) -> _Task:
    task = _Task(coro, loop=loop, **options)
    loop._tasks += 1
    task.number = loop._tasks
    return task


def _shuffle(ready: deque[asyncio.Handle], rng: Random) -> None:
    """Put what is due into an order that depends on nothing but the seed.

    Task groups cancel their tasks in the order of a set, that is, of addresses: tasks are put
    in the order of their numbers first, behind all else, which comes in a fixed order.
    """
    handles = sorted(ready, key=_task_number)
    rng.shuffle(handles)
    ready.clear()
    ready.extend(handles)


def _task_number(handle: asyncio.Handle) -> int:
    """Return the number of the task that `handle` is a step of; 0 where it is none's."""
    owner = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
    return owner.number if isinstance(owner, _Task) else 0


class _CancelledAt(Coroutine[Any, Any, T]):
    """A coroutine whose task is cancelled while it waits for the n-th time."""

    def __init__(self, coro: Coroutine[Any, Any, T], n: int) -> None:
        self._coro, self._left = coro, n

    def send(self, value: Any) -> Any:
        waited_for = self._coro.send(value)
        self._left -= 1
        if self._left == 0:
            task = asyncio.current_task()
            assert task is not None
            task.get_loop().call_soon(task.cancel)
        return waited_for

    def throw(self, *error: Any) -> Any:
        return self._coro.throw(*error)

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coro.__await__()


def cancelled_at(coro: Coroutine[Any, Any, T], n: int) -> Coroutine[Any, Any, T]:
    """Return `coro` such that its task is cancelled when it waits for the `n`-th time, from 1."""
    return _CancelledAt(coro, n)


def run(main: Coroutine[Any, Any, T], seed: int | None = None) -> T:
    """Run `main` in virtual time and return its result; tasks that it leaves are cancelled.

    With `seed`, what is due at one instant happens in an order drawn by it.

    Raises:
        DeadlockError: every task waits and no timer is set; the text names the tasks.
    """
    results: list[T] = []

    async def keep() -> None:  # the runner puts a task's result into words: never a large one
        results.append(await main)

    with asyncio.Runner(loop_factory=partial(VirtualTimeLoop, seed)) as runner:
        runner.run(keep())
    return results[0]
