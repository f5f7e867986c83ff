"""A line to `experiment.remote` on a host: requests and answers over one SSH channel."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from paramiko import Channel
from paramiko.ssh_exception import SSHException

from experiment.remote import SILENCE_S
from jellyfish.errors import RunError

_READ_BYTES = 1 << 16


class Line:
    """Requests and answers over one SSH channel, a line each.

    Args:
        host: the host's name, for errors.
        channel: to `python -m experiment.remote`.
    """

    def __init__(self, host: str, channel: Channel) -> None:
        self._host, self._channel = host, channel
        self._text = b""

    def send(self, value: dict[str, Any]) -> None:
        """Say one line.

        Raises:
            RunError: the host is lost.
        """
        try:
            self._channel.sendall(json.dumps(value).encode() + b"\n")
        except (OSError, SSHException) as error:
            raise self._lost(error) from error

    def receive(self, patience_s: float = SILENCE_S) -> dict[str, Any]:
        """Return what the other end says next.

        Raises:
            RunError: it has ended, or says nothing; the text names the host and why.
        """
        self._channel.settimeout(patience_s)
        while b"\n" not in self._text:
            try:
                data = self._channel.recv(_READ_BYTES)
            except TimeoutError:
                raise RunError(
                    f"{self._host}: nothing heard for {patience_s:g} s: the host or the way to it "
                    "is down"
                ) from None
            except (OSError, SSHException) as error:
                raise self._lost(error) from error
            if not data:
                raise RunError(f"{self._host}: {self._last_words()}")
            self._text += data
        line, _, self._text = self._text.partition(b"\n")
        value: dict[str, Any] = json.loads(line)
        return value

    def _lost(self, error: Exception) -> RunError:
        return RunError(f"{self._host}: the SSH session is lost: {error or type(error).__name__}")

    def _last_words(self) -> str:
        """Return what the other end wrote before it ended."""
        said = b""
        with suppress(OSError):
            self._channel.settimeout(1.0)
            while data := self._channel.recv_stderr(_READ_BYTES):
                said += data
        told = said.decode(errors="replace").strip()
        self._channel.status_event.wait(2.0)
        if self._channel.exit_status > 0 and told:  # it ended by itself, and said why
            return told.splitlines()[-1]
        return f"the SSH session was ended from there{f': {told}' if told else ''}"
