"""Files that appear whole or not at all, and what is no file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from prototxt_parser.atomic import atomic_write
from prototxt_parser.errors import WriteError


def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"ne")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_link_keeps_pointing_to_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "big_disk").mkdir()
    link, target = tmp_path / "model", tmp_path / "big_disk" / "model_7"
    target.write_bytes(b"old")
    link.symlink_to(target)
    with atomic_write(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_what_is_no_file_is_written_in_place(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with atomic_write(path) as file:
        file.write(b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert path.is_fifo()


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    words = "model: cannot write: Is a directory"
    with pytest.raises(WriteError, match=words), atomic_write(tmp_path / "model") as file:
        file.write(b"x")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
