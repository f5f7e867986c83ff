"""YAML files with keys: what wrong ones get is one line that names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from jellyfish.errors import ConfigError
from jellyfish.files.keys import read_keys


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no keys of a zoo"),
        (b"- a\n", "holds no keys of a zoo"),
        (b"a: 1\nb: [1, 2\n", "cannot be read: it is no YAML: line 3: expected"),
        (b"a:\tx: y\n", "cannot be read: it is no YAML: line 1: "),
        (b"a: \xff\n", "cannot be read: 'utf-8' codec"),
        (b"a: \x07\n", "cannot be read: unacceptable character"),
    ],
)
def test_what_holds_no_keys_is_named_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "some.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_keys(path, "a zoo")
    assert str(error.value).startswith(f"{path} {said}")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_and_one_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read: No such file or directory"):
        read_keys(tmp_path / "none.yaml", "a zoo")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_keys(tmp_path, "a zoo")


def test_keys_in_any_language(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("é: [1, 2]\n", encoding="utf-8")
    assert read_keys(path, "a zoo") == {"é": [1, 2]}
