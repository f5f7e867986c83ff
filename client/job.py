"""A client's job: one JSON file that says what to stream, where to, and where to write."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any

from client.security import Security, host_of
from client.session import SILENCE_S, SessionConfig
from jellyfish.errors import ConfigError
from jellyfish.files.atomic import read_json
from jellyfish.files.credentials import is_loopback, read_secret
from jellyfish.policy import policy
from jellyfish.trace import Trace, from_rates

_POSITIVE = ("fps", "slo_ms", "stream_s", "silence_s", "in_flight_limit")
_NOT_NEGATIVE = ("client", "start_after_s", "delay_ms", "wire_ms", "give_up_s")
_WHOLE = ("client", "in_flight_limit", "seed")
_OPTIONAL_PATHS = ("tls_ca", "tls_cert", "tls_key", "secret_file")
_PARTS = {"clip": "name and path", "trace": "mbps and step_s"}

KEYS = """\
  name             what the client calls itself to the server
  client           its number, in file names and rows
  server           HOST:PORT; or a list of them: when one cannot be reached, refuses or stops, the
                   client goes on to the next
  fps              frames captured per second
  slo_ms           end-to-end latency that answers must keep
  stream_s         seconds for which it captures
  clip             {name, path} of the video that it loops
  out_dir          where its files go
  start_after_s    it begins so long after the start signal (0)
  wait_for_go      the start signal is a file OUT_DIR/go; false: start at once (true)
  trace            {mbps: [...], step_s} of the uplink; null for no limit (null)
  source_ports     [first, last] that tc knows the client by and shapes the uplink of; null: a
                   relay shapes it (null)
  delay_ms         added each way (0)
  wire_ms          what the bandwidth estimate takes the wire's latency for, one way (0.5)
  silence_s        a server that says nothing for longer is gone; it speaks twice a second (2.5)
  give_up_s        it ends when it had no connection for so long; 0: when the first one is lost;
                   null: it tries until the stream is over (null)
  in_flight_limit  with so many frames unanswered, a captured frame is not sent (32)
  policy           the policy whose rules for clients it follows (jellyfish)
  seed             of the pauses between two tries to get a connection back (0)
  tls_ca           PEM file of certificates to trust; null for no TLS (null)
  tls_cert         PEM file of the client's certificate, where the server asks for one, and of
                   those between it and its CA; null for none (null)
  tls_key          PEM file of its key (null)
  secret_file      file with the server's bearer secret; needs TLS, except to loopback; null for
                   none (null)
"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one client process does: the keys of its JSON file, as KEYS explains them."""

    name: str
    client: int
    server: str | list[str]
    fps: float
    slo_ms: float
    stream_s: float
    clip: dict[str, str]
    out_dir: Path
    start_after_s: float = 0.0
    wait_for_go: bool = True
    trace: dict[str, Any] | None = None
    source_ports: list[int] | None = None
    delay_ms: float = 0.0
    wire_ms: float = 0.5
    silence_s: float = SILENCE_S
    give_up_s: float | None = None
    in_flight_limit: int = 32
    policy: str = "jellyfish"
    seed: int = 0
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    secret_file: Path | None = None

    @property
    def servers(self) -> list[str]:
        """HOST:PORT of each server, the first one to try first."""
        return _servers(self.server)

    @property
    def relayed(self) -> bool:
        """Whether a relay goes between: it shapes the uplink, or lets tc know the connection."""
        return self.trace is not None or self.delay_ms > 0

    def session(self) -> SessionConfig:
        """Return the part that the session needs.

        Raises:
            ConfigError: there is no such policy.
        """
        return SessionConfig(
            client=self.client,
            name=self.name,
            fps=self.fps,
            slo_ms=self.slo_ms,
            stream_s=self.stream_s,
            in_flight_limit=self.in_flight_limit,
            wire_ms=self.wire_ms,
            silence_s=self.silence_s,
            give_up_s=self.give_up_s,
            policy=policy(self.policy),
        )

    def uplink(self) -> Trace | None:
        """Return the trace of the uplink.

        Raises:
            ConfigError: it cannot be one.
        """
        if self.trace is None:
            return None
        try:
            return from_rates(self.name, self.trace["mbps"], self.trace["step_s"])
        except (TypeError, ValueError) as error:
            raise ConfigError(f"client job: trace: {error}") from None

    def security(self) -> Security:
        """Return what the transport needs to know of TLS and secrets.

        Raises:
            ConfigError: a file cannot be used.
        """
        secret = None if self.secret_file is None else read_secret(self.secret_file, "secret_file")
        found = Security(ca=self.tls_ca, cert=self.tls_cert, key=self.tls_key, secret=secret)
        found.credentials()  # what is wrong with its files is told now, not on connecting
        return found

    def path(self, suffix: str) -> Path:
        """Return the path of this client's file with that suffix."""
        return self.out_dir / f"client-{self.client}.{suffix}"


def read_job(path: Path) -> Job:
    """Return the job in `path`.

    Raises:
        ConfigError: a key is unknown, missing or wrong; the text names file and key.
        DataError: the file is missing or no JSON.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: want an object of keys")
    known = {field.name: field for field in fields(Job)}
    for key in value:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}; there are: {', '.join(known)}")
    for key, field in known.items():
        if field.default is MISSING and key not in value:
            raise ConfigError(f"{path}: {key} is missing")
    _check(path, value)
    for key in ("out_dir", *_OPTIONAL_PATHS):
        if value.get(key) is not None:
            value[key] = Path(value[key])
    return Job(**value)


def _check(path: Path, value: dict[str, Any]) -> None:
    for key in (*_POSITIVE, *_NOT_NEGATIVE):
        number = value.get(key, 1)
        if number is None and key == "give_up_s":
            continue
        if not _is_number(number) or number < 0 or (number == 0 and key in _POSITIVE):
            low = "more than 0" if key in _POSITIVE else "0 or more"
            raise ConfigError(f"{path}: {key} is {number!r}; want a number, {low}")
    for key in _WHOLE:
        if not isinstance(value.get(key, 1), int):
            raise ConfigError(f"{path}: {key} is {value[key]!r}; want a whole number")
    for key, parts in _PARTS.items():
        part = value.get(key)
        if not (part is None and key == "trace") and not _has(part, parts.split(" and ")):
            raise ConfigError(f"{path}: {key} is {part!r}; want {parts}")
    ports = value.get("source_ports")
    if ports is not None and not _are_ports(ports):
        raise ConfigError(f"{path}: source_ports is {ports!r}; want [first, last]")
    servers = _servers(value["server"])
    if not servers or not all(map(_is_address, servers)):
        raise ConfigError(
            f"{path}: server is {value['server']!r}; want HOST:PORT or a list of them"
        )
    if len(servers) > 1 and (value.get("trace") is not None or value.get("delay_ms", 0) > 0):
        raise ConfigError(f"{path}: trace and delay_ms go with one server alone; a relay has one")
    _check_security(path, value)


def _check_security(path: Path, value: dict[str, Any]) -> None:
    for name in _OPTIONAL_PATHS:
        if not isinstance(value.get(name) or "", str):
            raise ConfigError(f"{path}: {name} is {value[name]!r}; want a file, or null")
    tls, cert, key, secret = (value.get(name) is not None for name in _OPTIONAL_PATHS)
    if cert != key:
        raise ConfigError(f"{path}: tls_cert and tls_key go together; one is missing")
    if cert and not tls:
        raise ConfigError(f"{path}: tls_cert needs tls_ca")
    far = [server for server in _servers(value["server"]) if not is_loopback(host_of(server))]
    if secret and not tls and far:
        raise ConfigError(
            f"{path}: secret_file: the server at {far[0]} is not on loopback, and without "
            "TLS whoever listens to the network reads the secret; give tls_ca"
        )


def _servers(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_address(value: Any) -> bool:
    host, _, port = str(value).rpartition(":")
    return bool(host) and port.isdecimal()


def _are_ports(value: Any) -> bool:
    whole = isinstance(value, list) and len(value) == 2 and all(isinstance(v, int) for v in value)
    return whole and 0 < value[0] <= value[1] < 65536


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _has(value: Any, keys: list[str]) -> bool:
    return isinstance(value, dict) and set(keys) <= set(value)
