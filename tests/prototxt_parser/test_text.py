"""Prototxt text in and out: what is wrong, where, and what was expected."""

import pytest

from prototxt_parser.errors import PrototxtError
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import layer_positions, parse_text, print_text


def error_of(text: str) -> str:
    """Return the message of the error that reading a text as a net ends in."""
    with pytest.raises(PrototxtError) as caught:
        parse_text(text, caffe_pb2.NetParameter(), "net.prototxt")
    return str(caught.value)


MISTAKES = {
    "unknown field, one near": (
        'name: "n"\nlayer {\n  convolution_param { kernel_sizee: 3 }\n}',
        'net.prototxt:3:23: unknown field "kernel_sizee" in ConvolutionParameter; '
        'did you mean "kernel_size"?',
    ),
    "unknown field, two near": (
        "layer { convolution_param { kernel_x: 3 } }",
        'net.prototxt:1:29: unknown field "kernel_x" in ConvolutionParameter; '
        'did you mean "kernel_w" or "kernel_h"?',
    ),
    "unknown field, none near": (
        "layer { volume: 3 }",
        'net.prototxt:1:9: unknown field "volume" in LayerParameter',
    ),
    "unknown enum name": (
        "layer { pooling_param { pool: AVG } }",
        "net.prototxt:1:31: unknown value AVG for PoolMethod; expected one of MAX, AVE, STOCHASTIC",
    ),
    "unknown enum number": (
        "layer { pooling_param { pool: 7 } }",
        "net.prototxt:1:31: unknown value 7 for PoolMethod; expected one of MAX, AVE, STOCHASTIC",
    ),
    "scalar twice": (
        'layer { name: "a"\nname: "b" }',
        'net.prototxt:2:7: "name" of LayerParameter may be given only once',
    ),
    "message twice": (
        "layer { pooling_param { } pooling_param { } }",
        'net.prototxt:1:41: "pooling_param" of LayerParameter may be given only once',
    ),
    "string without quotes": (
        "layer { type: ReLU }",
        "net.prototxt:1:15: expected a string in quotes; received ReLU",
    ),
    "number for a string": (
        "layer { name: 3 }",
        "net.prototxt:1:15: expected a string in quotes; received 3",
    ),
    "fraction": (
        "layer { pooling_param { stride: 1.5 } }",
        "net.prototxt:1:33: expected a whole number; received 1.5",
    ),
    "string for a number": (
        'layer { pooling_param { stride: "3" } }',
        'net.prototxt:1:33: expected a whole number; received "3"',
    ),
    "word for a float": (
        "layer { lrn_param { alpha: small } }",
        "net.prototxt:1:28: expected a number; received small",
    ),
    "negative unsigned": (
        "layer { pooling_param { stride: -1 } }",
        "net.prototxt:1:33: expected a number in the range of the field; received -1",
    ),
    "too large": (
        "input_dim: 2147483648",
        "net.prototxt:1:12: expected a number in the range of the field; received 2147483648",
    ),
    "not a bool": (
        "force_backward: yes",
        "net.prototxt:1:17: expected true or false; received yes",
    ),
    "missing required field": (
        'layer { name: "a" }\n  layer { clip_param { min: 1 } }',
        'net.prototxt:2:3: missing required field "max" of layer[1].clip_param',
    ),
    "no colon": ('layer { name "a" }', 'net.prototxt:1:14: expected ":"; received "a"'),
    "no brace": ('layer "a"', 'net.prototxt:1:7: expected "{"; received "a"'),
    "no value": (
        "name:",
        "net.prototxt:1:6: expected a string in quotes; received the end of the text",
    ),
    "no field name": ('"name": "a"', 'net.prototxt:1:1: expected a field name; received "name"'),
    "extension": ("[some.thing] { }", "net.prototxt:1:7: expected a field name; received thing"),
    "unterminated string": (
        'layer {\n  name: "a\n}',
        "net.prototxt:2:9: string without an end on its line",
    ),
    "not UTF-8 in a string": (
        'name: "\\377"',
        "net.prototxt:1:13: the string before this place is not UTF-8",
    ),
    "open brace": ('layer {\n  name: "a"\n', 'net.prototxt:1:7: "{" is never closed'),
    "stray brace": ('layer { name: "a" }\n}', 'net.prototxt:2:1: "}" closes nothing'),
    "wrong bracket": (
        "input_dim: [1, 2}",
        'net.prototxt:1:17: expected "]" for the "[" of line 1; received "}"',
    ),
    "NUL": ('name: "a\0"', "net.prototxt: not text but a binary file; are these weights?"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_with_their_place(mistake: str) -> None:
    text, message = MISTAKES[mistake]
    assert error_of(text) == message


def test_missing_required_field_of_the_top_message() -> None:
    with pytest.raises(PrototxtError, match=r'^clip: missing required field "max"$'):
        parse_text("min: 1", caffe_pb2.ClipParameter(), "clip")


HOSTILE = {
    "messages": ("a {" * 100_000, ":303: nested deeper than 100 levels"),
    "lists": ("[" * 100_000, ":101: nested deeper than 100 levels"),
    "angles": ("a <" * 100_000, ":303: nested deeper than 100 levels"),
    "known messages": ("layers { layer {" * 50_000, ":808: nested deeper than 100 levels"),
    "closing": ("}" * 100_000, '"}" closes nothing'),
    "quotes": ('"' * 99_999, ":99999: string without an end on its line"),
    "layers": ("layer " * 100_000, 'expected "{"; received layer'),
    "one name": ("a" * 50_000_000, 'unknown field "' + "a" * 57 + '..." in NetParameter'),
    "one number": ("input_dim: " + "9" * 50_000_000, "received " + "9" * 57 + "..."),
    "one open string": ('name: "' + "a" * 50_000_000, ":7: string without an end on its line"),
    "backslashes": ('name: "' + "\\" * 49_999_999 + '"', ":7: string without an end on its line"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_ends_in_one_short_error(kind: str) -> None:
    text, expected = HOSTILE[kind]
    message = error_of(text)
    assert expected in message
    assert len(message) < 200


def test_nesting_up_to_the_limit_is_left_to_the_parser() -> None:
    assert "unknown field" in error_of("a {" * 100 + "}" * 100)


def test_long_valid_string_is_read() -> None:
    text = 'name: "' + "a" * 5_000_000 + '"'
    assert len(parse_text(text, caffe_pb2.NetParameter(), "net").name) == 5_000_000


def test_every_way_of_writing_is_read() -> None:
    text = """
        # a comment with "quotes' and { brackets
        name: "it's" ' "one" name # }}}'  # the rest
        input: ["a", 'b'];
        input_dim: [1, 0x10, 017]
        input_dim: -1,
        layer < name: "#1" >
        layer: { include { phase: 1 } pooling_param { pool: AVE } }
        layer { lrn_param { alpha: 1e-4 beta: .5 k: 2.f } }
    """
    net = parse_text(text, caffe_pb2.NetParameter(), "net")
    assert net.name == 'it\'s "one" name # }}}'
    assert list(net.input) == ["a", "b"]
    assert list(net.input_dim) == [1, 16, 15, -1]
    assert [layer.name for layer in net.layer] == ["#1", "", ""]
    assert net.layer[1].include[0].phase == caffe_pb2.TEST
    assert net.layer[2].lrn_param.alpha == pytest.approx(1e-4)
    assert (net.layer[2].lrn_param.beta, net.layer[2].lrn_param.k) == (0.5, 2)


def test_windows_line_ends_keep_places() -> None:
    assert error_of('name: "n"\r\nlayer {\r\n\tbotom: "a"\r\n}').startswith("net.prototxt:3:2: ")


def test_positions_of_layers() -> None:
    text = (
        "layer { }\n"
        '# layer { }\nname: "layer {" layers {\n'
        '  layer { name: "V0" } }\n'
        "state { } layer # here\n: < > layer: [ { },\n { } ] layer_x { }\n"
    )
    assert layer_positions(text) == [(1, 1), (3, 17), (5, 11), (6, 16), (7, 2)]


def test_positions_need_sound_brackets() -> None:
    with pytest.raises(PrototxtError, match=r':1:7: "{" is never closed'):
        layer_positions("layer {")


def test_printed_text_reads_back_equal() -> None:
    net = caffe_pb2.NetParameter(name='quo"te \\ \n é \x01', input=["a"], input_dim=[1, -1])
    layer = net.layer.add(name="x", loss_weight=[0.1, 1e-30, float("inf"), 16777217])
    layer.clip_param.min, layer.clip_param.max = -1.5, 3.25
    layer.blobs.add(data=[0.1, 0.2], double_data=[0.1]).shape.dim.extend([2])
    layer.include.add()
    text = print_text(net)
    assert "é" in text
    assert parse_text(text, caffe_pb2.NetParameter(), "printed") == net
