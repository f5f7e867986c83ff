"""What the server leaves on disk: streamed while it runs, made into its files at the end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jellyfish.files.journal import Jobs, Journal
from jellyfish.files.streams import (
    CLIENTS_LINES,
    PLANS_LINES,
    PLANS_TABLE,
    STATE,
    as_record,
    server_jobs,
)
from jellyfish.files.tables import PlanRow
from server.clients import ClientHandle

log = logging.getLogger(__name__)

STATE_S = 0.5
PATIENCE_S = 10.0  # with a disk that stalls
TABLE_BYTES = 16 << 20  # of plan rows are made into a table at the end: that takes a second or two


class Records:
    """Streams plans, and what became of clients, to `folder`; nothing stays in memory.

    Args:
        folder: where the server's files go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._journal = folder, Journal()
        self._plans = self._journal.lines(folder / PLANS_LINES)
        self._clients = self._journal.lines(folder / CLIENTS_LINES)
        self._state = self._journal.latest(folder / STATE)

    def start(self) -> None:
        """Write from now on, in a thread."""
        threading.Thread(target=self._journal.run, name="records", daemon=True).start()

    def on_plan(self, row: PlanRow) -> None:
        """Take a scheduler run."""
        self._plans.append(as_record(row))

    def on_left(self, client: ClientHandle) -> None:
        """Take a client that is gone, and of whose frames none is under way any more."""
        self._clients.append(client.record())

    async def keep_state(self, state: Callable[[], dict[str, Any]]) -> None:
        """Write down twice a second, for ever, how it stands with those who are there."""
        while True:
            self._state.replace(state())
            await asyncio.sleep(STATE_S)

    def close(self, state: dict[str, Any]) -> None:
        """Write what is left, and make the server's files of it.

        Raises:
            RunError: a file cannot be written; what was streamed stays where it is.
        """
        self._journal.close(PATIENCE_S, self.jobs(state))

    def jobs(self, state: dict[str, Any]) -> Jobs:
        """Return the server's files, and what makes each of what was streamed."""
        jobs = dict(server_jobs(self._folder, state))
        lines = self._folder / PLANS_LINES
        if lines.exists() and lines.stat().st_size > TABLE_BYTES:
            log.warning(
                "%s stays as it is, for its size: python -m experiment.collect %s makes the table",
                lines,
                self._folder,
            )
            del jobs[self._folder / PLANS_TABLE]
        return jobs
