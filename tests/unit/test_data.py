from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from jellyfish.errors import ConfigError, DataError
from scripts.data import Asset, Source, fetch, fetch_named, main, read_assets, sha256_of
from scripts.sources import SourceError, _unpack, debian_source, pypi_source

CONTENT = bytes(range(256)) * 4096  # 1 MiB
RIGHT = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT; `breaks` says after how many bytes each coming answer breaks off."""

    daemon_threads = True
    content = CONTENT
    ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks: list[int] = []
        self.asked: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        if self.path != "/file":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        total = len(self.server.content)
        if asked and self.server.ranges and start >= total:
            self.send_error(416)
            return
        start = start if self.server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        body = self.server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        breaks = self.server.breaks.pop(0) if self.server.breaks else len(body)
        self.wfile.write(body[:breaks])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def asset(*sources: Source, sha256: str = RIGHT) -> Asset:
    return Asset("thing", "files/thing.bin", sha256, "none", sources)


def url(address: str) -> Source:
    return Source("url", address)


def quiet() -> Console:
    return Console(file=io.StringIO())


def test_the_first_source_with_the_right_file_wins(server: Server, tmp_path: Path) -> None:
    console = quiet()
    missing = url(server.address + "-not")
    path = fetch(asset(missing, url(server.address), url("http://x/")), tmp_path, console)
    assert path == tmp_path / "files" / "thing.bin"
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["thing.bin"]
    assert "404" in console.file.getvalue()  # type: ignore[attr-defined]
    server.asked.clear()
    assert fetch(asset(url(server.address)), tmp_path, quiet()) == path
    assert server.asked == []


def test_a_wrong_file_is_named_and_never_used(server: Server, tmp_path: Path) -> None:
    server.content = b"something else"
    found = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(DataError, match=found):
        fetch(asset(url(server.address)), tmp_path, quiet())
    assert not list((tmp_path / "files").iterdir())


def test_a_wrong_file_put_there_by_hand_is_replaced_or_named(
    server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "files" / "thing.bin"
    path.parent.mkdir()
    path.write_bytes(b"by hand")
    with pytest.raises(DataError, match=sha256_of(path)):
        fetch(asset(url(server.address + "-not")), tmp_path, quiet())
    assert path.read_bytes() == b"by hand"
    assert fetch(asset(url(server.address)), tmp_path, quiet()).read_bytes() == CONTENT


def test_a_download_that_breaks_off_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.breaks = [300_000, 300_000]
    assert fetch(asset(url(server.address)), tmp_path, quiet()).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=600000-"]


def test_a_download_goes_on_in_a_later_call(server: Server, tmp_path: Path) -> None:
    server.breaks = [100_000] * 5
    with pytest.raises(DataError, match="run again to go on"):
        fetch(asset(url(server.address)), tmp_path, quiet())
    server.asked.clear()
    path = fetch(asset(url(server.address)), tmp_path, quiet())
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=500000-"]
    assert [p.name for p in path.parent.iterdir()] == ["thing.bin"]


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * (2 << 20)], ids=["shorter", "longer"])
@pytest.mark.parametrize("ranges", [True, False])
def test_what_is_left_of_another_file_is_started_over(
    server: Server, tmp_path: Path, left: bytes, ranges: bool
) -> None:
    server.ranges = ranges
    unfinished = tmp_path / "files" / ".unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / hashlib.sha256(server.address.encode()).hexdigest()[:16]).write_bytes(left)
    assert fetch(asset(url(server.address)), tmp_path, quiet()).read_bytes() == CONTENT


def test_without_any_source_one_error_says_what_was_tried(tmp_path: Path) -> None:
    sources = (url("http://127.0.0.1:9/thing"), url("http://no.such.host.invalid/thing"))
    with pytest.raises(DataError) as caught:
        fetch(asset(*sources), tmp_path, quiet())
    text = str(caught.value)
    for part in (*(s.where for s in sources), "refused", RIGHT, str(tmp_path / "files/thing.bin")):
        assert part in text
    assert "by hand" in text


def test_a_place_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "files").write_text("a file where a folder must be: nothing can be written")
    with pytest.raises(DataError, match=r"cannot write .*thing\.bin"):
        fetch(asset(url(server.address)), tmp_path, quiet())


BACKEND = """
from pathlib import Path
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = Path(folder) / "thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: thing\\nVersion: 1.0\\n")
    return info.name
def build_wheel(*args, **kwargs):
    raise RuntimeError("nothing is to be built")
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index of one source distribution, thing 1.0, that pip is set up for."""
    folder = tmp_path / "index"
    folder.mkdir()
    files = {"pyproject.toml": PROJECT, "backend.py": BACKEND, "PKG-INFO": "Name: thing\n"}
    with tarfile.open(folder / "thing-1.0.tar.gz", "w:gz") as tar:
        for name, content in {**files, "data/thing.bin": CONTENT}.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(f"thing-1.0/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.usefixtures("index")
def test_a_member_of_a_source_distribution(tmp_path: Path) -> None:
    source = Source("pypi", "thing==1.0", "data/thing.bin")
    assert fetch(asset(source), tmp_path, quiet()).read_bytes() == CONTENT


@pytest.mark.usefixtures("index")
def test_a_folder_of_a_source_distribution_comes_as_one_file(tmp_path: Path) -> None:
    for name in ("one.zip", "two.zip"):
        pypi_source("thing==1.0", "data/", tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as packed:
        assert packed.namelist() == ["thing.bin"]
        assert packed.read("thing.bin") == CONTENT
    with pytest.raises(SourceError, match=r"thing-1\.0\.tar\.gz holds no other/"):
        pypi_source("thing==1.0", "other/", tmp_path / "out")


@pytest.mark.usefixtures("index")
def test_why_a_source_distribution_gives_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"thing-1\.0\.tar\.gz holds no data/other\.bin"):
        pypi_source("thing==1.0", "data/other.bin", tmp_path / "out")
    with pytest.raises(SourceError, match=r"pip: No matching distribution found for thing==2\.0"):
        pypi_source("thing==2.0", "data/thing.bin", tmp_path / "out")


def test_a_source_distribution_may_be_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "thing-1.0.zip", "w") as zipped:
        zipped.writestr("thing-1.0/data/thing.bin", CONTENT)
    _unpack(tmp_path / "thing-1.0.zip", "data/thing.bin", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    (tmp_path / "thing-1.0.tar.gz").write_bytes(b"no archive")
    with pytest.raises(SourceError, match="cannot be unpacked"):
        _unpack(tmp_path / "thing-1.0.tar.gz", "data/thing.bin", tmp_path / "out")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Debian repository of one package, thing, on a machine without package lists."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip("no Debian tools here")
    folder, tree = tmp_path / "repository", tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/share").mkdir(parents=True)
    folder.mkdir()
    control = "Package: thing\nVersion: 1.0\nArchitecture: all\nMaintainer: none <a@b.c>\n"
    control += "Description: a thing\n"
    (tree / "DEBIAN/control").write_text(control)
    (tree / "usr/share/thing.bin").write_bytes(CONTENT)
    deb = folder / "thing_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(deb)], check=True, capture_output=True)
    entry = f"Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {sha256_of(deb)}\n"
    (folder / "Packages").write_text(control + entry)
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{folder} ./\n")
    (tmp_path / "lists/partial").mkdir(parents=True)
    settings = {
        "Dir::Etc::SourceList": tmp_path / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": tmp_path / "lists",
        "APT::Sandbox::User": "root",
    }
    (tmp_path / "apt.conf").write_text("".join(f'{k} "{v}";\n' for k, v in settings.items()))
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return folder


def test_a_member_of_a_debian_package(repository: Path, tmp_path: Path) -> None:
    source = Source("debian", "thing", "usr/share/thing.bin")
    assert fetch(asset(source), tmp_path, quiet()).read_bytes() == CONTENT
    assert [p.name for p in (tmp_path / "files").iterdir()] == ["thing.bin"]
    assert not [p for p in (tmp_path / "lists").iterdir() if p.is_file()], "the machine's lists"
    with pytest.raises(SourceError, match=r"thing_1\.0_all\.deb holds no usr/other"):
        debian_source("thing", "usr/other", tmp_path / "out")
    with pytest.raises(SourceError, match="apt-get: Unable to locate package other"):
        debian_source("other", "usr/other", tmp_path / "out")


def test_a_client_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="apt-get is not installed"):
        debian_source("thing", "usr/share/thing.bin", tmp_path / "out")


SHA = "0" * 64


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ("{}", "thing needs exactly the keys"),
        (f"{{file: a, sha256: {SHA}, licence: x, sources: [], more: 1}}", "thing needs exactly"),
        (f"{{file: /etc/a, sha256: '{SHA}', licence: x, sources: []}}", "thing.file"),
        (f"{{file: ../a, sha256: '{SHA}', licence: x, sources: []}}", "thing.file"),
        ("{file: a, sha256: abc, licence: x, sources: []}", "thing.sha256"),
        (f"{{file: a, sha256: '{SHA}', licence: x, sources: []}}", "thing.sources"),
        (f"{{file: a, sha256: '{SHA}', licence: x, sources: [{{ftp: y}}]}}", r"sources\[0\]"),
        (f"{{file: a, sha256: '{SHA}', licence: x, sources: [{{pypi: y}}]}}", r"sources\[0\]"),
        (f"{{file: a, sha256: '{SHA}', licence: x, sources: [{{url: y}}]}}", r"sources\[0\]"),
    ],
)
def test_a_wrong_description_names_file_and_key(tmp_path: Path, entry: str, names: str) -> None:
    path = tmp_path / "assets.yaml"
    path.write_text(f"thing: {entry}\n")
    with pytest.raises(ConfigError, match=names) as caught:
        read_assets(path)
    assert "assets.yaml" in str(caught.value)


def test_a_missing_description_and_an_unknown_asset(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        read_assets(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match=r"no asset 'thing'; there are: .*vtest"):
        fetch_named(root / "config" / "assets.yaml", ["thing"], tmp_path)


def test_the_command_line(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = tmp_path / "assets.yaml"
    entry = (
        f"{{file: a.bin, sha256: '{RIGHT}', licence: x, sources: [{{url: '{server.address}'}}]}}"
    )
    description.write_text(f"thing: {entry}\n")
    arguments = ["--assets", str(description), "--data", str(tmp_path / "data")]
    assert main(arguments) == 0
    assert (tmp_path / "data" / "a.bin").read_bytes() == CONTENT
    os.remove(tmp_path / "data" / "a.bin")
    server.content = b"something else"
    assert main([*arguments, "thing"]) == 1
    assert "asset thing" in capsys.readouterr().err


def test_the_real_assets_are_right(assets: Path, root: Path) -> None:
    described = read_assets(root / "config" / "assets.yaml")
    assert {"yolov3-tiny-weights", "vtest"} <= set(described)
    for one in described.values():
        assert sha256_of(assets / one.file) == one.sha256
