"""The launcher, before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiment.launch import config_files, launch
from jellyfish.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "files"),
    [
        ("--cores all fig_8", []),
        ("--cores all --configfile a.yaml -n fig_8", ["a.yaml"]),
        ("--configfile a.yaml b.yaml --cores 1", ["a.yaml", "b.yaml"]),
        ("all --configfile=a.yaml fig_8", ["a.yaml"]),
        ("all --configfiles=a.yaml --configfile b.yaml", ["a.yaml", "b.yaml"]),
    ],
)
def test_the_config_files_among_options(options: str, files: list[str]) -> None:
    assert [str(path) for path in config_files(options.split())] == files


@pytest.mark.parametrize("name", ["broken.yaml", "none.yaml"])
def test_a_config_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.yaml").write_text("seed: 1\ngrid: [1, 2\n")
    (tmp_path / "Snakefile").write_text("rule all:\n    output: touch('started')\n")
    with pytest.raises(ConfigError, match=rf"{name} cannot be read"):
        launch(["--cores", "1", "--configfile", name], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Snakefile", "broken.yaml"]
