"""The grid of a scenario: which cells and runs its config asks for, and what each is called.

A *cell* is one setting (trace, clients, SLO, fps, policy, world, device), a *run* one clip and
repetition of it. Names come from config values alone, never from the content of a file, so that
adding a trace, clip or repetition computes only what is new and two scenarios never collide.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from experiment.charges import charge_settings
from jellyfish.errors import ConfigError
from jellyfish.files.zoo import read_zoo

Config = Mapping[str, Any]
ROOT = Path(__file__).resolve().parents[1]
SYNTHETIC = "synthetic"  # the profile of an emulated device that is no measured one


def digest(value: Any) -> str:
    """Return 8 hex digits that name `value` (JSON-like), independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def pick(config: Config, section: str, name: str) -> Any:
    """Return `config[section][name]`.

    Raises:
        ConfigError: there is no such name; the text lists those there are.
    """
    known = config[section]
    if name not in known:
        raise ConfigError(
            f"config: no {name!r} under {section}; there are: {', '.join(sorted(known))}"
        )
    return known[name]


@dataclass(frozen=True)
class ClientSpec:
    """What one client of a cell asks for."""

    slo_ms: float
    fps: float


@dataclass(frozen=True)
class Cell:
    """One setting of the grid.

    `group` is what figures show on the axis: 2, or `4_var_var`. `streams`: the items of the
    block's `client`, which are laid over the config's (see `of_cell`).
    """

    world: str
    device: str
    workers: int
    policy: str
    trace: str
    group: str
    clients: tuple[ClientSpec, ...]
    clips: tuple[str, ...]
    repetitions: int
    streams: tuple[tuple[str, Any], ...] = ()

    @property
    def slo(self) -> str:
        """The common SLO in ms, or `var`."""
        return _common([c.slo_ms for c in self.clients])

    @property
    def fps(self) -> str:
        """The common frame rate, or `var`."""
        return _common([c.fps for c in self.clients])

    @property
    def name(self) -> str:
        """A file name that tells cells of one scenario apart."""
        clients = f"{self.group}-slo{self.slo}-fps{self.fps}"
        return f"{self.world}-{self.device}x{self.workers}-{self.policy}-{self.trace}-{clients}"


@dataclass(frozen=True)
class Run:
    """One clip and repetition of a cell; `key` names its directory under results/runs/."""

    cell: Cell
    clip: str
    repetition: int
    key: str
    seed: int


def _common(values: list[float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else "var"


def cells(config: Config) -> list[Cell]:
    """Return every cell of the grid, each once, in the order of the config.

    Raises:
        ConfigError: a block names a trace, clip, device or mixed cell that the config lacks.
    """
    found: dict[str, Cell] = {}
    for block in config["grid"]:
        for cell in _block_cells(config, block):
            if found.setdefault(cell.name, cell) != cell:
                raise ConfigError(f"config: two blocks of grid ask for {cell.name} differently")
    return list(found.values())


def _block_cells(config: Config, block: Config) -> Iterator[Cell]:
    pick(config, "devices", block["device"])
    for clip in block["clips"]:
        pick(config, "clips", clip)
    groups = [
        (str(n), (ClientSpec(float(slo), float(fps)),) * n)
        for n, slo, fps in product(block["clients"], block["slo_ms"], block["fps"])
    ]
    for name in block.get("mixed", []):
        pairs = pick(config, "mixed", name)
        groups.append((name, tuple(ClientSpec(float(slo), float(fps)) for slo, fps in pairs)))
    policies = block.get("policies", [config["server"]["policy"]])
    for trace, policy, (group, clients) in product(block["traces"], policies, groups):
        pick(config, "traces", trace)
        yield Cell(
            world=block["world"],
            device=block["device"],
            workers=int(block["workers"]),
            policy=policy,
            trace=trace,
            group=group,
            clients=clients,
            clips=tuple(block["clips"]),
            repetitions=int(block["repetitions"]),
            streams=tuple(sorted(block.get("client", {}).items())),
        )


def of_cell(config: Config, cell: Cell) -> Config:
    """Return the config as it holds for `cell`: the client settings of its block laid over it."""
    return (
        {**config, "client": {**config["client"], **dict(cell.streams)}} if cell.streams else config
    )


def span_s(client: Mapping[str, Any], clients: int) -> float:
    """Return about how long a run streams, from its first client's start to its last one's end.

    Args:
        client: the config's section of that name.
        clients: how many there are.
    """
    return float(client["stream_s"] + sum(client["start_gap_s"]) / 2 * (clients - 1))


def is_emulated(config: Config, device: str) -> bool:
    """Whether `device` runs no DNN: it waits, and answers with stored detections."""
    return bool(pick(config, "devices", device)["kind"] == "emulated")


def emulated(config: Config, device: str) -> str | None:
    """Return the device whose measured latencies `device` has, if it is an emulated one.

    Raises:
        ConfigError: there is no such device, or it is emulated itself.
    """
    profile = pick(config, "devices", device).get("profile")
    if profile is None or profile == SYNTHETIC:
        return None
    if is_emulated(config, profile):
        raise ConfigError(f"config: devices.{device}: profile {profile!r} is emulated itself")
    return str(profile)


def latencies(config: Config, device: str) -> str:
    """Return what the latencies of `device` are called: `cpu: onnxruntime`, `emulated cpu`."""
    if is_emulated(config, device):
        return f"emulated {config['devices'][device]['profile']}"
    return f"{device}: {config['devices'][device]['kind']}"


def runs(config: Config, cell: Cell) -> list[Run]:
    """Return the runs of a cell, clip by clip and repetition by repetition."""
    return [
        _run(config, cell, clip, repetition)
        for clip, repetition in product(cell.clips, range(cell.repetitions))
    ]


def _run(config: Config, cell: Cell, clip: str, repetition: int) -> Run:
    settings = run_settings(config, cell, clip, repetition)
    name = f"{cell.name}-{clip}-r{repetition}-{digest(settings)}"
    seed = int(digest([config["seed"], _seeded_by(settings)]), 16)
    return Run(cell=cell, clip=clip, repetition=repetition, key=name, seed=seed)


def _seeded_by(settings: dict[str, Any]) -> dict[str, Any]:
    """Return those settings of a run that its seed depends on.

    A paired design: policies meet the same seeds, so that they differ in nothing else; so do the
    two worlds, the hosts of a testbed, a device and who emulates it, and runs with TLS and without.
    """
    passed_over = {"server", "policy", "simulation", "emulates"}
    kept = {key: value for key, value in settings.items() if key not in passed_over}
    device = settings.get("emulates", settings["device"])
    network = {key: value for key, value in settings["network"].items() if key != "tls"}
    kept |= {"device": device, "network": network}
    return {**kept, "world": "measured", "hosts": None}


def run_settings(config: Config, cell: Cell, clip: str, repetition: int) -> dict[str, Any]:
    """Return every config value that the run's result depends on: what its key is made of."""
    emulates = emulated(config, cell.device)
    return {
        **({"emulates": pick(config, "devices", emulates)} if emulates else {}),
        **({"simulation": simulation(config, cell.device)} if cell.world == "simulated" else {}),
        "seed": config["seed"],
        "zoo": zoo_settings(config["zoo"]),
        "clip": pick(config, "clips", clip),
        "trace": pick(config, "traces", cell.trace),
        "device": pick(config, "devices", cell.device),
        "profile": config["profile"],
        "server": config["server"],
        "policy": cell.policy,
        "workers": cell.workers,
        "network": _network(config, cell.world),
        "client": of_cell(config, cell)["client"],
        "clients": [[c.slo_ms, c.fps] for c in cell.clients],
        "world": cell.world,
        "hosts": hosts_settings(config["hosts"]) if cell.world == "measured" else None,
        "repetition": repetition,
    }


def _network(config: Config, world: str) -> dict[str, Any]:
    """Return the section of that name; TLS counts where it is spoken alone."""
    network = dict(config["network"])
    if world == "simulated" or network.get("tls") == "none":
        network.pop("tls", None)
    return network


def simulation(config: Config, device: str) -> dict[str, Any]:
    """Return what virtual time charges on `device`; recorded charges are config, like a zoo."""
    return charge_settings(config["simulation"], emulated(config, device) or device, ROOT)


def profile_key(config: Config, device: str) -> str:
    """Return the name of the profile of the config's zoo on `device`: results/profiles/KEY/.

    Where there are hosts, latencies are those of the server's: its address is in the key.
    """
    emulates = emulated(config, device)
    measured = emulates or not is_emulated(config, device)
    hosts = hosts_settings(config["hosts"]) if measured else None
    settings = [
        zoo_settings(config["zoo"]),
        pick(config, "devices", device),
        config["profile"],
        pick(config, "clips", config["profile"]["clip"]),
        config["scoring"],
        *([pick(config, "devices", emulates)] if emulates else []),
        *([hosts["server"]["address"]] if hosts else []),
    ]
    return f"{zoo_name(config)}-{device}-{digest(settings)}"


def accuracy_key(config: Config) -> str:
    """Return the name of the accuracies of the config's zoo: results/accuracy/KEY/.

    Every device gives the same detections.
    """
    clip = config["profile"]["clip"]
    settings = [zoo_settings(config["zoo"]), pick(config, "clips", clip), config["scoring"]]
    return f"{zoo_name(config)}-{clip}-{digest(settings)}"


def detections_key(config: Config, clip: str) -> str:
    """Return the name of the detections of the config's zoo on `clip`: results/detections/KEY/."""
    settings = [zoo_settings(config["zoo"]), pick(config, "clips", clip)]
    return f"{zoo_name(config)}-{clip}-{digest(settings)}"


def clip_key(config: Config, clip: str) -> str:
    """Return the name of a clip's file, so that scenarios may mean different cuts by one name."""
    return f"{clip}-{digest(pick(config, 'clips', clip))}"


@cache
def zoo_settings(path: str, root: Path = ROOT) -> str:
    """Return a digest of all that the zoo in the file at `path` says, its network included.

    A zoo is config: who edits its file asks for new profiles, detections and runs. Comments and
    order do not count.
    """
    zoo = read_zoo(root / path)
    network = [line.split("#")[0].strip() for line in zoo.cfg.read_text().splitlines()]
    settings = {key: value for key, value in asdict(zoo).items() if key != "cfg"}
    return digest([settings, [line for line in network if line]])


@cache
def hosts_settings(path: str | None, root: Path = ROOT) -> dict[str, Any] | None:
    """Return what the result of a run on the hosts of the file at `path` depends on."""
    if path is None:
        return None
    from experiment.host_file import read_hosts  # and with it a schema, which few need

    return read_hosts(root / path).settings()


def zoo_name(config: Config) -> str:
    """Return the zoo's name: the stem of its file."""
    return str(config["zoo"]).rsplit("/", 1)[-1].removesuffix(".yaml")
