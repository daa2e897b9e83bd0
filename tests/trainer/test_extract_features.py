"""`torrefy extract-features`: blobs of a net as Datums of floats."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from leveldb_databases import GOLDEN_DATABASES, entries

from prototxt_parser import build_net, load_weights, read_net, save_weights
from trainer.cli import main
from trainer.data.datum import decode_datum, parse_datum

NET = f"""
name: "small"
layer {{
  name: "feed" type: "Data" top: "pic" top: "mark"
  data_param {{ source: "{GOLDEN_DATABASES}/raw_leveldb" batch_size: 5 }}
  include {{ phase: TEST }}
}}
layer {{
  name: "conv" type: "Convolution" bottom: "pic" top: "conv"
  convolution_param {{
    num_output: 4 kernel_size: 5 stride: 3 weight_filler {{ type: "xavier" }}
  }}
}}
layer {{
  name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param {{ num_output: 6 weight_filler {{ type: "xavier" }} }}
}}
layer {{ name: "relu" type: "ReLU" bottom: "ip" top: "ip" }}
layer {{
  name: "cube" type: "Reshape" bottom: "pic" top: "cube"
  reshape_param {{ shape {{ dim: 0 dim: 3 dim: 5 dim: 4 dim: 24 }} }}
}}
"""


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, Path]:
    """Return the files of weights and net."""
    net, weights = tmp_path / "small.prototxt", tmp_path / "small.caffemodel"
    net.write_text(NET)
    shapes = {"pic": (5, 3, 20, 24), "mark": (5,)}
    save_weights(build_net(read_net(net), "TEST", input_shapes=shapes, seed=3), weights)
    return weights, net


def pictures() -> torch.Tensor:
    values = [value for _, value in entries(GOLDEN_DATABASES / "raw_lmdb", "lmdb")]
    stored = [decode_datum(parse_datum(value)) for value in values]
    return torch.from_numpy(np.stack([stored[number % 12] for number in range(15)])).float()


def extract(trained: tuple[Path, Path], blobs: str, targets: str, *rest: str) -> int:
    return main(["extract-features", *map(str, trained), blobs, targets, *rest])


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_features_are_the_blobs_of_every_image(
    backend: str,
    trained: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    targets = [tmp_path / name for name in ("conv", "ip", "mark", "again")]
    names = ["conv", "ip", "mark", "ip"]
    listed = ",".join(map(str, targets))
    assert extract(trained, ",".join(names), listed, "3", backend, "CPU", "0") == 0
    weights, file = trained
    net = build_net(read_net(file), "TEST", input_shapes={"pic": (15, 3, 20, 24), "mark": (15,)})
    load_weights(net, weights)
    labels = [parse_datum(value).label for _, value in entries(GOLDEN_DATABASES / "raw_leveldb")]
    marks = torch.tensor([labels[number % 12] for number in range(15)])
    net({"pic": pictures(), "mark": marks})
    for name, target, shape in zip(
        names, targets, [(4, 6, 7), (6, 1, 1), (1, 1, 1), (6, 1, 1)], strict=True
    ):
        found = entries(target, backend)
        assert [key for key, _ in found] == [b"%010d" % number for number in range(15)]
        datums = [parse_datum(value) for _, value in found]
        assert not any(
            datum.HasField(field) for datum in datums for field in ("label", "data", "encoded")
        )
        features = np.stack([decode_datum(datum) for datum in datums])
        assert features.shape == (15, *shape)
        wanted = net.blobs[name].detach().numpy().reshape(features.shape)
        np.testing.assert_allclose(features, wanted, rtol=1e-5, atol=1e-4)
    output = capsys.readouterr()
    for name in names:
        line = f"Extracted features of 15 query images for feature blob {name}\n"
        assert line in output.err
    assert re.search(
        r" extract_features.cpp:\d+] Successfully extracted the features!\n", output.err
    )
    assert output.out.splitlines()[0] == f"{targets[0]}: 15 features of conv"


@pytest.mark.parametrize(
    ("blobs", "targets", "message"),
    [
        ("conv,ip", "one", "number of blob names and dataset names must be equal"),
        ("conv,gone", "one,two", "Unknown feature blob name gone in the network"),
        ("conv,ip", "one,./one", "expected a database of its own for every blob"),
        ("cube", "one", "cube: expected a blob of 1 to 4 axes"),
    ],
)
def test_what_cannot_be_extracted_is_named(
    blobs: str,
    targets: str,
    message: str,
    trained: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert extract(trained, blobs, targets, "2", "lmdb") == 2
    assert message in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "small.caffemodel",
        "small.prototxt",
    ]


def test_nothing_is_left_of_several_databases_if_one_is_there(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two").mkdir()
    targets = f"{tmp_path / 'one'},{tmp_path / 'two'}"
    assert extract(trained, "conv,ip", targets, "2", "leveldb") == 2
    assert "two: exists already" in capsys.readouterr().err
    assert not (tmp_path / "one").exists()
    assert not list((tmp_path / "two").iterdir())


@pytest.mark.parametrize(
    "rest", [["0", "lmdb"], ["x", "lmdb"], ["1", "rocks"], ["1", "lmdb", "TPU"]]
)
def test_wrong_words_end_with_2(rest: list[str], trained: tuple[Path, Path]) -> None:
    with pytest.raises(SystemExit, match=r"2"):
        extract(trained, "conv", "one", *rest)


def test_the_gpus_number_may_be_written_as_caffe_documents_it(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "made")
    number = "DEVICE_ID=7777"
    assert extract(trained, "ip", target, "1", "lmdb", "GPU", number) == 2
    assert "7777" in capsys.readouterr().err
