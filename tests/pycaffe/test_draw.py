"""Pictures of nets: what the graph says, and every way to write it."""

import sys
from pathlib import Path

import pytest

from prototxt_parser import read_net
from prototxt_parser.errors import WriteError
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text
from pycaffe.draw import draw_net, draw_net_to_file, get_pydot_graph
from trainer.cli import main
from trainer.errors import TrainerError, UsageError

NET = """
name: "say \\"hi\\""
layer { name: "in" type: "Data" top: "data" top: "label" data_param { batch_size: 7 }
  include { phase: TRAIN } }
layer { name: "in" type: "Data" top: "data" data_param { batch_size: 3 } exclude { phase: TRAIN } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 0.5 }
  convolution_param { num_output: 20 kernel_h: 3 kernel_w: 5 pad: 1 pad: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "up" type: "Deconvolution" bottom: "conv" top: "up"
  convolution_param { num_output: 4 kernel_size: 2 stride: 2 } }
layer { name: "pool" type: "Pooling" bottom: "up" top: "pool"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "all" type: "Pooling" bottom: "pool" top: "all"
  pooling_param { global_pooling: true } }
layer { name: "ip" type: "InnerProduct" bottom: "all" top: "ip"
  inner_product_param { num_output: 9 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss"
  include { stage: "learn" } }
"""


def net() -> caffe_pb2.NetParameter:
    return parse_text(NET, caffe_pb2.NetParameter(), "net")


def labels(shape: str, **options: object) -> list[str]:
    graph = get_pydot_graph(net(), str(options.pop("rankdir", "LR")), **options)  # type: ignore[arg-type]
    nodes = [node for node in graph.get_nodes() if node.get("shape") == shape]
    return [node.get("label").strip('"') for node in nodes]


def test_layers_say_what_they_do() -> None:
    assert labels("box") == [
        r"in\n(Data)",
        r"in\n(Data)",
        r"conv\n(Convolution)\nkernel size: 3x5\nstride: 1\npad: 1x2",
        r"relu\n(ReLU)",
        r"up\n(Deconvolution)\nkernel size: 2\nstride: 2\npad: 0",
        r"pool\n(AVE Pooling)\nkernel size: 3\nstride: 2\npad: 0",
        r"all\n(MAX Pooling)\nglobal",
        r"ip\n(InnerProduct)",
        r"loss\n(SoftmaxWithLoss)",
    ]


def test_a_net_from_top_to_bottom_has_wide_labels() -> None:
    assert labels("box", rankdir="TB")[5] == "pool (AVE Pooling) kernel size: 3 stride: 2 pad: 0"


def test_multipliers_are_shown_on_demand() -> None:
    shown = labels("box", display_lrm=True)
    assert [text.rpartition(r"\n")[2] for text in shown if "lr mult" in text] == [
        "lr mult: 0.5", "lr mult: 1", "lr mult: 1",
    ]  # fmt: skip


def test_blobs_are_drawn_once() -> None:
    assert labels("octagon") == ["data", "label", "conv", "up", "pool", "all", "ip", "loss"]


def test_a_phase_selects_layers_by_their_phase_rules_only() -> None:
    train = get_pydot_graph(net(), "LR", phase=caffe_pb2.TRAIN)
    test = get_pydot_graph(net(), "LR", phase=caffe_pb2.TEST)
    assert [edge.get("label") for edge in train.get_edges()[:2]] == ['"Batch 7"', '"Batch 7"']
    assert [edge.get("label") for edge in test.get_edges()[:1]] == ['"Batch 3"']
    assert len(train.get_nodes()) == len(test.get_nodes()) == 8 + 8


def test_edges_show_batches_and_outputs() -> None:
    graph = get_pydot_graph(net(), "LR", phase=caffe_pb2.TRAIN)
    texts = [edge.get("label").strip('"') for edge in graph.get_edges()]
    assert [text for text in texts if text] == ["Batch 7", "Batch 7", "20", "4", "9"]
    plain = get_pydot_graph(net(), "LR", label_edges=False)
    assert {edge.get("label") for edge in plain.get_edges()} == {'""'}


def test_colours_say_the_kind() -> None:
    graph = get_pydot_graph(net(), "LR")
    colours = {node.get("label").strip('"').split("\\n")[0]: node.get("fillcolor").strip('"')
               for node in graph.get_nodes()}  # fmt: skip
    assert graph.get_node('"layer_2"')[0].get("fillcolor") == '"#FF5050"'
    assert colours["relu"] == "#90EE90" and colours["label"] == "#E0E0E0"
    assert graph.get_node('"layer_4"')[0].get("fillcolor") == '"#6495ED"'
    assert graph.get_node('"layer_5"')[0].get("fillcolor") == '"#FF9900"'
    assert graph.get_node('"layer_7"')[0].get("fillcolor") == '"#CC33FF"'


def test_text_needs_no_graphviz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "net.dot"
    draw_net_to_file(net(), path)
    text = path.read_text()
    assert text.startswith('digraph "say \\"hi\\"" {\nrankdir=LR;')
    assert '"blob_data" -> "layer_2" [label=""];' in text
    assert draw_net(net(), "LR", "gv") == path.read_bytes()


def fake_dot(folder: Path, script: str) -> None:
    """Put a program `dot` into a folder."""
    program = folder / "dot"
    program.write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
    program.chmod(0o755)


def test_other_formats_are_graphviz_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_dot(tmp_path, "print(sys.argv[1:], len(sys.stdin.read()))")
    monkeypatch.setenv("PATH", str(tmp_path))
    draw_net_to_file(net(), tmp_path / "net.svg", "TB", caffe_pb2.TEST, True)
    size = len(draw_net(net(), "TB", "dot", caffe_pb2.TEST, True))
    assert (tmp_path / "net.svg").read_text() == f"['-Tsvg'] {size}\n"


def test_graphviz_missing_or_failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TrainerError, match=r"a \.png picture needs Graphviz's program `dot`"):
        draw_net(net(), "LR")
    fake_dot(tmp_path, "sys.exit('Format: \"xyz\" not recognized')")
    with pytest.raises(TrainerError, match='`dot -Txyz` failed: Format: "xyz" not recognized'):
        draw_net(net(), "LR", "xyz")


def test_pydot_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydot", None)
    with pytest.raises(TrainerError, match=r"pip install 'torrefy\[draw\]'"):
        get_pydot_graph(net(), "LR")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the extension says the format"):
        draw_net_to_file(net(), tmp_path / "net")
    with pytest.raises(UsageError, match="rankdir must be one of TB, LR, BT, RL; received XY"):
        draw_net_to_file(net(), tmp_path / "net.dot", "XY")
    with pytest.raises(WriteError, match="gone"):
        draw_net_to_file(net(), tmp_path / "gone" / "net.dot")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "lenet.dot"
    flags = ["-rankdir=TB", "--phase", "TEST", "-display_lrm"]
    assert main(["draw", "lenet.prototxt", str(out), *flags]) == 0
    assert capsys.readouterr().out == f"Drawing net to {out}\n"
    want = draw_net(read_net("lenet.prototxt").param, "TB", "dot", caffe_pb2.TEST, True)
    assert out.read_bytes() == want
    assert main(["draw", "no.prototxt", str(out)]) == 2
    assert "no.prototxt: no such file" in capsys.readouterr().err
