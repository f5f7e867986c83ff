"""A server's job: one JSON file that says what to serve, on what, and where to write."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any

from jellyfish.emulation import worker_seed
from jellyfish.errors import ConfigError, DataError
from jellyfish.files.atomic import read_json
from jellyfish.files.credentials import is_loopback, read_secret
from jellyfish.files.profiles import read_profile
from jellyfish.files.zoo import ZooSpec, read_zoo
from jellyfish.policy import Policy, policy
from jellyfish.profile import Profile
from server.devices.base import DeviceSpec, device_spec, emulated_spec
from server.settings import EngineConfig

KEYS = """\
  zoo              the zoo's YAML file
  profile          its profile on these devices, a JSON file
  model            {onnx, weights}: its weights; the one that the devices' kind needs; for
                   emulated devices {emulation, detections: {clip: {px: file}}}
  devices          one {kind, ...} a worker, as in the config, and `cores`: where it runs
  out_dir          where the server's files go
  host, port       where it listens; port 0: any that is free (127.0.0.1, 0)
  policy           how it plans, queues, batches and drops (jellyfish)
  seed             of the scheduler's random numbers (1)
  plan_interval_s  a new plan at least so often (0.5)
  cached_dnns      how many DNNs a worker keeps loaded (5)
  wire_ms          latency of the wire, one way, as the scheduler reckons with it (0.5)
  max_clients      more are turned away (256)
  max_clients_per_peer  so many of them may come from one address, or with one certificate's
                   name; null: half of them (null)
  tls_cert         PEM file of the server's certificate, and of those between it and its CA; read
                   again when it changes, like the next two; null: no TLS (null)
  tls_key          PEM file of its key (null)
  tls_client_ca    PEM file of CAs that clients' certificates must descend from; null: clients
                   need none (null)
  secret_file      file whose text calls must carry as bearer token; needs TLS, except on
                   loopback; null: none (null)
  reflection       whether gRPC's reflection service tells what there is to call (false)
"""
_OPTIONAL_PATHS = ("tls_cert", "tls_key", "tls_client_ca", "secret_file")
_PATHS = ("zoo", "profile", "out_dir", *_OPTIONAL_PATHS)
_POSITIVE = ("plan_interval_s", "cached_dnns", "max_clients", "max_clients_per_peer")
_NOT_NEGATIVE = ("port", "wire_ms", "seed")
_WHOLE = ("port", "seed", "cached_dnns", "max_clients", "max_clients_per_peer")


@dataclass(frozen=True, kw_only=True)
class ServerJob:
    """What one server process does: the keys of its JSON file, as KEYS explains them."""

    zoo: Path
    profile: Path
    model: dict[str, Any]
    devices: list[dict[str, Any]]
    out_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    policy: str = "jellyfish"
    seed: int = 1
    plan_interval_s: float = 0.5
    cached_dnns: int = 5
    wire_ms: float = 0.5
    max_clients: int = 256
    max_clients_per_peer: int | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    secret_file: Path | None = None
    reflection: bool = False

    @property
    def engine(self) -> EngineConfig:
        """Limits and intervals of the engine."""
        return EngineConfig(
            plan_interval_s=self.plan_interval_s,
            cached_dnns=self.cached_dnns,
            wire_ms=self.wire_ms,
            max_clients=self.max_clients,
            check_images=any(device.get("kind") != "emulated" for device in self.devices),
        )

    def read_policy(self) -> Policy:
        """Return the policy.

        Raises:
            ConfigError: there is none of that name.
        """
        return policy(self.policy)

    def read_profile(self) -> Profile:
        """Return the profile.

        Raises:
            DataError: the file is missing or no profile.
        """
        return read_profile(self.profile)

    def device_specs(self, profile: Profile) -> list[DeviceSpec]:
        """Return what each worker opens: the DNNs of `profile`, warmed up to its largest batch.

        Raises:
            ConfigError: zoo or devices cannot be used.
            DataError: the weights are missing.
        """
        zoo = read_zoo(self.zoo)
        specs = [self._device_spec(i, zoo, profile) for i in range(len(self.devices))]
        for spec in specs:
            if not spec.model.is_file():
                what = "latencies" if spec.kind == "emulated" else "weights"
                raise DataError(f"the {what} for {spec.kind} are missing: no file {spec.model}")
        return specs

    def _device_spec(self, worker: int, zoo: ZooSpec, profile: Profile) -> DeviceSpec:
        settings = dict(self.devices[worker])
        cores = settings.pop("cores", None)
        shared: dict[str, Any] = {
            "max_batch": profile.max_batch,
            "input_px": tuple(int(px) for px in profile.input_px),
            "cores": None if cores is None else tuple(cores),
        }
        if settings.get("kind") == "emulated":
            return emulated_spec(
                settings,
                zoo,
                emulation=Path(self.model.get("emulation", "")),
                detections=_files(self.model.get("detections", {})),
                seed=worker_seed(self.seed, worker),
                **shared,
            )
        onnx, weights = (Path(self.model.get(name, "")) for name in ("onnx", "weights"))
        return device_spec(settings, zoo, onnx=onnx, weights=weights, **shared)

    def secret(self) -> str | None:
        """Return the bearer secret, if clients need one.

        Raises:
            ConfigError: its file holds none.
        """
        return None if self.secret_file is None else read_secret(self.secret_file, "secret_file")


def read_job(path: Path) -> ServerJob:
    """Return the job in `path`.

    Raises:
        DataError: the file is missing or no JSON.
        ConfigError: a key is missing, unknown, or has a value that cannot be used.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ConfigError(f"{path} is no job: want a JSON object")
    known = {field.name: field for field in fields(ServerJob)}
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ConfigError(f"{path}: unknown key {unknown[0]}; there are: {', '.join(known)}")
    required = [name for name, field in known.items() if field.default is MISSING]
    missing = [name for name in required if name not in value]
    if missing:
        raise ConfigError(f"{path}: {missing[0]} is missing")
    _check(path, value)
    paths = {name: Path(value[name]) for name in _PATHS if value.get(name) is not None}
    return ServerJob(**{**value, **paths})


def _check(path: Path, value: dict[str, Any]) -> None:
    def wrong(key: str, want: str) -> ConfigError:
        return ConfigError(f"{path}: {key} is {value[key]!r}; want {want}")

    for key in (*_PATHS, "host", "policy"):
        optional = key in _OPTIONAL_PATHS
        if not (isinstance(value.get(key, ""), str) or (optional and value[key] is None)):
            raise wrong(key, "text")
    for key in _POSITIVE + _NOT_NEGATIVE:
        number = value.get(key, 1)
        if number is None and key == "max_clients_per_peer":
            continue
        kinds = (int,) if key in _WHOLE else (int, float)
        if type(number) not in kinds or not isfinite(number) or number < 0:
            raise wrong(key, "a whole number, 0 or more" if key in _WHOLE else "a number")
        if number == 0 and key in _POSITIVE:
            raise wrong(key, "more than 0")
    if not isinstance(value.get("reflection", False), bool):
        raise wrong("reflection", "true or false")
    if value.get("port", 0) > 65535:
        raise wrong("port", "at most 65535")
    if not isinstance(value["model"], dict):
        raise wrong("model", "{onnx, weights}")
    devices = value["devices"]
    if not isinstance(devices, list) or not devices or not all(type(d) is dict for d in devices):
        raise wrong("devices", "a list of one {kind, ...} a worker")
    _check_security(path, value)


def _check_security(path: Path, value: dict[str, Any]) -> None:
    tls, key, ca, secret = (value.get(name) is not None for name in _OPTIONAL_PATHS)
    if tls != key:
        raise ConfigError(f"{path}: tls_cert and tls_key go together; one is missing")
    if ca and not tls:
        raise ConfigError(f"{path}: tls_client_ca needs tls_cert and tls_key")
    host = value.get("host", ServerJob.host)
    if secret and not tls and not is_loopback(host):
        raise ConfigError(
            f"{path}: secret_file: host {host!r} is not loopback, and without TLS whoever listens "
            "to the network reads the secret; give tls_cert and tls_key"
        )


def _files(detections: Any) -> dict[str, dict[int, Path]]:
    try:
        return {
            str(clip): {int(px): Path(path) for px, path in sizes.items()}
            for clip, sizes in detections.items()
        }
    except (AttributeError, TypeError, ValueError):
        raise ConfigError("model: detections must be {clip: {px: file}}") from None
