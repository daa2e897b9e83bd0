"""Data of the tiny task, for the tests that run it; a service, for those that attack it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import Caller, Target, attacked

from tiny_task import write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_data(folder)
    return folder


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    """Return a folder of the test's own with the data in it."""
    for name in ("train_lmdb", "test_lmdb"):
        (tmp_path / name).symlink_to(data / name)
    return tmp_path


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    with attacked(encrypted=request.param) as target:
        yield target


@pytest.fixture
def caller(target: Target) -> Iterator[Caller]:
    caller = Caller(target.address)
    yield caller
    caller.close()
