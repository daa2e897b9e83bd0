"""Which GPU a worker takes of those that Spark gives to its task."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from trainer.cluster.gpus import assigned_device
from trainer.errors import TrainerError


@dataclass
class Context:
    """A task's context, as far as resources go."""

    given: dict[str, list[str]] = field(default_factory=dict)

    def resources(self) -> dict[str, Any]:
        return {name: SimpleNamespace(addresses=list(own)) for name, own in self.given.items()}


@pytest.fixture(autouse=True)
def all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("device", "given", "expected"),
    [
        ("cuda", {"gpu": ["3"]}, "cuda:3"),
        ("cuda", {"gpu": ["2", "5"]}, "cuda:2"),
        ("cuda", {"gpu": []}, "cuda"),
        ("cuda", {"fpga": ["1"]}, "cuda"),
        ("cuda:1", {"gpu": ["3"]}, "cuda:1"),
        ("cpu", {"gpu": ["3"]}, "cpu"),
    ],
)
def test_the_first_gpu_of_the_task_is_taken(
    device: str, given: dict[str, list[str]], expected: str
) -> None:
    assert assigned_device(device, Context(given)) == expected


def test_without_spark_nothing_is_assigned() -> None:
    assert assigned_device("cuda", None) == "cuda"


@pytest.mark.parametrize(
    ("visible", "address", "expected"),
    [("4,6", "6", "cuda:1"), ("GPU-ab, GPU-cd", "GPU-cd", "cuda:1"), ("4,6", "0", "cuda:0")],
)
def test_gpus_are_counted_as_pytorch_counts_them(
    monkeypatch: pytest.MonkeyPatch, visible: str, address: str, expected: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert assigned_device("cuda", Context({"gpu": [address]})) == expected


def test_a_name_that_says_nothing_is_refused() -> None:
    with pytest.raises(TrainerError, match='the GPU "GPU-ab"; expected its number'):
        assigned_device("cuda", Context({"gpu": ["GPU-ab"]}))
