"""The process of a worker: one device, one batch at a time, loads beside it.

Started by server.worker_process as `python -m server.worker_child FD PARENT NAME`.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import cv2

from jellyfish.errors import DeviceError, JellyfishError
from server.devices import Device, DeviceSpec, make
from server.linux import die_with_parent, leave_ends_to_parent, run_before_others
from server.logs import log_to_stderr
from server.pipe import BlockingPipe, unpack
from server.worker import BatchResult

log = logging.getLogger(__name__)

LOADER_NICE = 10  # on a core of its own, a batch gets some nine tenths of it beside a warm-up

Job = tuple[int, Callable[[], Any]]


class Child:
    """Answers what comes over `pipe` as (number, method, arguments) with (number, value)."""

    def __init__(self, pipe: BlockingPipe) -> None:
        self._pipe = pipe
        self._loads: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._device: Device | None = None

    def serve(self) -> None:
        """Answer until the other end closes."""
        for parts in self._pipe.messages():
            start = perf_counter()
            number, method, args = unpack(parts)
            match method:
                case "open":
                    self._answer(number, partial(self._open, *args))
                case "run":
                    self._answer(number, partial(self._run, start, *args))
                case "ping":
                    self._answer(number, lambda: None)
                case "load" | "evict":
                    self._loads.put((number, partial(getattr(self._opened(), method), *args)))

    def _answer(self, number: int, job: Callable[[], Any]) -> None:
        try:
            value = job()
        except JellyfishError as error:
            value = error
        except Exception as error:  # a fault of ours: reported to whoever asked, and in the log
            log.exception("request %d failed", number)
            value = DeviceError(f"{type(error).__name__}: {error}")
        self._pipe.send((number, value))

    def _open(self, spec: DeviceSpec) -> None:
        if spec.cores is not None:
            os.sched_setaffinity(0, spec.cores)  # before libraries start their threads
        cv2.setNumThreads(1)
        self._device = make(spec)
        if spec.kind == "emulated":  # it sleeps, and must wake on time beside those that work
            run_before_others()
        threading.Thread(target=self._load_all, daemon=True, name="loader").start()

    def _opened(self) -> Device:
        if self._device is None:
            raise DeviceError("the device is not open")
        return self._device

    def _run(self, start: float, *args: Any) -> BatchResult:
        result = self._opened().run(*args)
        return replace(result, busy_ms=(perf_counter() - start) * 1000.0)

    def _load_all(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOADER_NICE)
        while True:
            self._answer(*self._loads.get())


def main() -> None:
    """Serve until the parent closes the socket or dies."""
    fd, parent, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    die_with_parent(parent)
    leave_ends_to_parent()
    log_to_stderr(f"%(asctime)s {name} %(levelname)s %(message)s", logging.WARNING)
    with socket.socket(fileno=fd) as sock:
        Child(BlockingPipe(sock)).serve()


if __name__ == "__main__":
    main()
