"""RNN and LSTM: states from forward to forward, streams, gradients, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prototxt_parser import Net, PrototxtError, build_net
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text

STEPS, STREAMS, VALUES, HIDDEN = 4, 3, 5, 2
SHAPES = {
    "x": (STEPS, STREAMS, VALUES),
    "cont": (STEPS, STREAMS),
    "s": (STREAMS, 6),
    "h0": (1, STREAMS, HIDDEN),
    "c0": (1, STREAMS, HIDDEN),
}


def net_of(
    layer_type: str,
    bottoms: str = "x cont",
    tops: str = "y",
    settings: str = "",
    shapes: dict[str, tuple[int, ...]] = SHAPES,
) -> Net:
    text = "force_backward: true "
    for name in bottoms.split():
        dims = " ".join(f"dim: {size}" for size in shapes[name])
        text += (
            f'layer {{ name: "in_{name}" type: "Input" top: "{name}" '
            f"input_param {{ shape {{ {dims} }} }} }} "
        )
    ends = [f'bottom: "{n}"' for n in bottoms.split()] + [f'top: "{n}"' for n in tops.split()]
    text += (
        f'layer {{ name: "r" type: "{layer_type}" {" ".join(ends)} recurrent_param {{ '
        f'num_output: {HIDDEN} weight_filler {{ type: "uniform" min: -1 }} {settings} }} }}'
    )
    net = parse_text(text, caffe_pb2.NetParameter(), "test.prototxt")
    return build_net(net, "TRAIN", seed=5, dtype=torch.float64)


def sequence(streams: int = STREAMS) -> dict[str, Tensor]:
    x = torch.randn(STEPS, streams, VALUES, dtype=torch.float64)
    return {"x": x, "cont": torch.ones(STEPS, streams, dtype=torch.float64)}


@pytest.mark.parametrize("layer_type", ["RNN", "LSTM"])
def test_two_forwards_are_one_over_both_halves(layer_type: str) -> None:
    half, whole = (
        net_of(layer_type),
        net_of(layer_type, shapes=SHAPES | {"x": (8, 3, 5), "cont": (8, 3)}),
    )
    first, second = sequence(), sequence()
    both = {name: torch.cat([first[name], second[name]]) for name in first}
    parts = torch.cat([half(first)["y"], half(second)["y"]])
    torch.testing.assert_close(parts, whole(both)["y"])


@pytest.mark.parametrize("layer_type", ["RNN", "LSTM"])
def test_a_stream_that_starts_anew_knows_nothing_of_before(layer_type: str) -> None:
    net, fresh = net_of(layer_type), net_of(layer_type)
    net(sequence())
    batch = sequence()
    batch["cont"][0, 1] = 0
    y, expected = net(batch)["y"], fresh(batch)["y"]
    torch.testing.assert_close(y[:, 1], expected[:, 1])
    assert not torch.isclose(y[:, 0], expected[:, 0]).any()


@pytest.mark.parametrize("layer_type", ["RNN", "LSTM"])
def test_other_streams_start_at_zero(layer_type: str) -> None:
    net, fresh = net_of(layer_type), net_of(layer_type)
    net(sequence())
    batch = sequence(streams=7)
    torch.testing.assert_close(net(batch)["y"], fresh(batch)["y"])


@pytest.mark.parametrize("layer_type", ["RNN", "LSTM"])
def test_a_hidden_state_that_is_no_number_is_forgotten(layer_type: str) -> None:
    net, fresh = net_of(layer_type), net_of(layer_type)
    net.layers["r"].hidden.fill_(float("nan"))
    batch = sequence()
    batch["cont"][0] = 0
    torch.testing.assert_close(net(batch)["y"], fresh(batch)["y"])
    net.backward({"y": torch.ones(STEPS, STREAMS, HIDDEN, dtype=torch.float64)})
    assert net.flat.grad.isfinite().all()


def test_carried_states_follow_the_net_but_are_no_weights() -> None:
    net = net_of("LSTM")
    net(sequence())
    assert net.layers["r"].cell.dtype == torch.float64
    net.float()
    assert net.layers["r"].cell.dtype == torch.float32
    assert not any("cell" in name or "hidden" in name for name in net.state_dict())


@pytest.mark.parametrize(("layer_type", "states"), [("RNN", ["h"]), ("LSTM", ["h", "c"])])
def test_exposed_states_go_in_and_come_out(layer_type: str, states: list[str]) -> None:
    bottoms = " ".join(["x", "cont", "s", *[f"{state}0" for state in states]])
    tops = " ".join(["y", *[f"{state}T" for state in states]])
    net = net_of(layer_type, bottoms, tops, "expose_hidden: true")
    static = torch.randn(SHAPES["s"], dtype=torch.float64)
    zeros = {f"{s}0": torch.zeros(SHAPES["h0"], dtype=torch.float64) for s in states}
    first = sequence()
    tops_of_first = net(first | {"s": static} | zeros)
    carried = {f"{s}0": tops_of_first[f"{s}T"] for s in states}
    second = sequence()
    exposed = net(second | {"s": static} | carried)["y"]
    hidden = net_of(layer_type, "x cont s")
    hidden(first | {"s": static})
    torch.testing.assert_close(hidden(second | {"s": static})["y"], exposed)


def test_a_step_may_hold_one_value_and_the_static_input_too() -> None:
    shapes = {"x": (STEPS, STREAMS), "cont": (STEPS, STREAMS), "s": (STREAMS,)}
    net = net_of("LSTM", "x cont s", shapes=shapes)
    assert [tuple(blob.shape) for blob in net.layers["r"].blobs] == [(8, 1), (8,), (8, 1), (8, 2)]
    y = net({name: torch.ones(shape) for name, shape in shapes.items()})["y"]
    assert y.shape == (STEPS, STREAMS, HIDDEN)


def test_a_continuation_between_0_and_1_scales_the_gate_and_caffes_gradient() -> None:
    text = (
        'force_backward: true layer { name: "in" type: "Input" top: "c" top: "g" top: "cont" '
        "input_param { shape { dim: 1 dim: 1 dim: 1 } shape { dim: 1 dim: 1 dim: 4 } "
        'shape { dim: 1 dim: 1 } } } layer { name: "u" type: "LSTMUnit" bottom: "c" bottom: "g" '
        'bottom: "cont" top: "c1" top: "h1" }'
    )
    param = parse_text(text, caffe_pb2.NetParameter(), "test.prototxt")
    net = build_net(param, "TRAIN", seed=5)
    net.keeps_diffs = True
    gates = torch.tensor([[[-30.0, 0.0, 0.0, 0.0]]])
    top = net({"c": torch.full((1, 1, 1), 3.0), "g": gates, "cont": torch.full((1, 1), 0.5)})
    assert top["c1"].item() == pytest.approx(0.25 * 3)
    net.backward({"c1": torch.ones(1, 1, 1)})
    assert net.diff("g")[0, 0, 1].item() == pytest.approx(3 * 0.25 * 0.75)
    assert net.diff("c").item() == pytest.approx(0.25)
    assert net.diff("cont").item() == 0


REFUSED = {
    "LSTM Layer takes at least 4 bottom": ("x cont", "y h c", "expose_hidden: true", {}),
    "LSTM Layer produces 3 top": ("x cont h0 c0", "y h", "expose_hidden: true", {}),
    "LSTM Layer takes at most 3 bottom": ("x cont h0 c0", "y", "", {}),
    "must have at least 2 axes": ("x cont", "y", "", {"x": (4,)}),
    "must have exactly 2 axes": ("x cont", "y", "", {"cont": (4, 5)}),
    "must have a row for each of 3 streams": ("x cont s", "y", "", {"s": (4, 3)}),
    r"bottom\[3\] shape must match hidden state": (
        "x cont h0 c0",
        "y h c",
        "expose_hidden: true",
        {"c0": (1, 2, 3)},
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_wrong_bottoms_and_tops_are_refused(message: str) -> None:
    bottoms, tops, settings, shapes = REFUSED[message]
    with pytest.raises(PrototxtError, match=rf'layer "r" \(LSTM\): .*{message}'):
        net_of("LSTM", bottoms, tops, settings, SHAPES | shapes)


def test_other_steps_or_values_than_built_for_are_refused() -> None:
    net = net_of("RNN")
    batch = sequence()
    with pytest.raises(PrototxtError, match="timesteps changed: expected 4; received 3"):
        net({name: value[:3] for name, value in batch.items()})
    with pytest.raises(PrototxtError, match=r"expected \[5\] values per stream; received \[2\]"):
        net(batch | {"x": batch["x"][..., :2]})
