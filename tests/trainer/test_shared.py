"""The shared centre: its file, what becomes of it, and real processes that write it at once."""

import logging
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_task import lone_worker, write_data
from trainer.errors import TrainerError
from trainer.links import Move, Pull
from trainer.parameter_server.shared import map_shared, shared_file
from trainer.strategies import Hogwild, Options, Replica
from trainer.strategies.arithmetic import Layout


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have shared files lie in a folder of the test's own."""
    monkeypatch.setattr("trainer.parameter_server.shared._FOLDERS", (tmp_path / "none", tmp_path))
    return tmp_path


def test_all_who_map_it_see_a_change_and_it_is_gone_afterwards(memory: Path) -> None:
    with shared_file(7) as path:
        one, other = (map_shared(path, 7, "here") for _ in range(2))
        assert one.tolist() == [0] * 7
        one[3] = 5
        assert other[3] == 5
        assert path.stat().st_mode & 0o777 == 0o600
    assert list(memory.iterdir()) == []
    with pytest.raises(TrainerError, match=r"share the memory of one host, alpha, .*another str"):
        map_shared(path, 7, "alpha")


def test_it_is_gone_after_an_error(memory: Path) -> None:
    with pytest.raises(KeyboardInterrupt), shared_file(7):
        raise KeyboardInterrupt
    assert list(memory.iterdir()) == []


def hold_and_die(folder: Path) -> None:
    from trainer.parameter_server import shared

    shared._FOLDERS = (folder,)
    with shared.shared_file(5):
        os._exit(9)


def test_what_a_killed_run_left_is_removed_by_the_next_and_a_living_ones_is_not(
    memory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trainer")
    process = multiprocessing.get_context("spawn").Process(target=hold_and_die, args=(memory,))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    (orphan,) = memory.iterdir()
    with shared_file(7) as first:
        assert not orphan.exists()
        with shared_file(7) as second:
            assert sorted(memory.iterdir()) == sorted([first, second])
    assert [str(orphan) in r.getMessage() for r in caplog.records] == [True]


def test_no_room_is_said(memory: Path) -> None:
    message = rf"no room to share {1 << 60} bytes \({memory}/none: No such file.*; {memory}: "
    with pytest.raises(TrainerError, match=message), shared_file(1 << 58):
        pass
    assert list(memory.iterdir()) == []


class CountingLink:
    """A driver that shares a file and counts."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size

    def shared(self) -> torch.Tensor:
        return map_shared(self._path, self._size, "here")

    def exchange(
        self, sent: torch.Tensor, move: Move, iteration: int, *, is_answered: bool = True
    ) -> Pull:
        assert (sent.numel(), move.rule, is_answered) == (0, "count", False)
        return Pull(sent, 0)

    def fetch(self) -> torch.Tensor:
        raise AssertionError


def work(folder: Path, path: Path, rank: int) -> None:
    torch.set_num_threads(1)
    solver = lone_worker(folder, rank, 2, base_lr=0.0001, momentum=0.5)
    flat, strategy = solver.net.flat, Hogwild(Options())
    link, layout = CountingLink(path, flat.data.numel()), Layout.of(flat.segments)
    losses = []
    for iteration in range(200):
        own = Replica(flat.data, flat.grad, solver.history, layout, iteration)
        if iteration == 0:
            strategy.start(own, link)
        solver.step(1)
        losses.append(solver.smoothed_loss)
        strategy.exchange(own, link)
    solver.close()
    np.save(folder / f"losses{rank}.npy", losses)


def test_two_processes_train_the_same_memory_without_a_lock(tmp_path: Path) -> None:
    write_data(tmp_path)
    start = lone_worker(tmp_path, 0, 1)
    values = start.net.flat.data.clone()
    start.close()
    with shared_file(values.numel()) as path:
        shared = map_shared(path, values.numel(), "here")
        shared.copy_(values)
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=work, args=(tmp_path, path, r)) for r in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0, 0]
        assert shared.isfinite().all()
        assert not torch.equal(shared, values)
        for rank in range(2):
            losses = np.load(tmp_path / f"losses{rank}.npy")
            assert np.isfinite(losses).all()
            assert losses[-20:].mean() < losses[:3].mean() / 4
