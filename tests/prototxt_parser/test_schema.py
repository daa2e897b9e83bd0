"""The schema is Caffe's: which bytes and texts load depends on every number in it."""

import importlib.metadata
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from prototxt_parser.proto import caffe_pb2, deepspark_pb2, generate

Field = descriptor_pb2.FieldDescriptorProto
PROTO = Path(generate.__file__).parent


def schema_lines() -> Iterator[str]:
    """Yield the schema in the form of schema.txt: `message number field label type default`."""
    file = descriptor_pb2.FileDescriptorProto()
    caffe_pb2.DESCRIPTOR.CopyToProto(file)
    yield from (enum_line("", enum) for enum in file.enum_type)
    for message in file.message_type:
        yield from (enum_line(f"{message.name}.", enum) for enum in message.enum_type)
        yield from (field_line(message.name, field) for field in message.field)


def enum_line(owner: str, enum: descriptor_pb2.EnumDescriptorProto) -> str:
    """Return the line of an enum: `owner.name enum` and its values."""
    values = " ".join(f"{value.name}={value.number}" for value in enum.value)
    return f"{owner}{enum.name} enum {values}"


def field_line(owner: str, field: descriptor_pb2.FieldDescriptorProto) -> str:
    """Return the line of a field."""
    label = Field.Label.Name(field.label).removeprefix("LABEL_").lower()
    packed = "+packed" if field.options.packed else ""
    kind = field.type_name.rpartition(".")[2] or Field.Type.Name(field.type)[len("TYPE_") :].lower()
    default = field.default_value if field.HasField("default_value") else "-"
    if field.HasField("default_value") and field.type == Field.TYPE_STRING:
        default = f'"{default}"'
    if field.HasField("default_value") and field.type == Field.TYPE_FLOAT:
        default = f"{float(default):g}"  # protoc prints the nearest float32
    return f"{owner} {field.number} {field.name} {label}{packed} {kind} {default}"


def test_schema_is_caffes() -> None:
    expected = Path(__file__).with_name("schema.txt").read_text(encoding="utf-8").splitlines()
    assert len(expected) == 449
    assert sorted(schema_lines()) == sorted(expected)


def test_enums_of_fields_belong_to_the_same_message() -> None:
    for message in caffe_pb2.DESCRIPTOR.message_types_by_name.values():
        for field in message.fields:
            if field.enum_type and field.enum_type.name != "Phase":
                assert field.enum_type.containing_type is message, field.full_name


def test_known_bytes() -> None:
    blob = caffe_pb2.BlobProto(data=[1.0], shape=caffe_pb2.BlobShape(dim=[1]))
    layer = caffe_pb2.LayerParameter(name="ip", blobs=[blob])
    net = caffe_pb2.NetParameter(layer=[layer])
    payload = bytes.fromhex("2a040000803f3a030a0101")
    layer_bytes = b"\x0a\x02ip" + b"\x3a" + bytes([len(payload)]) + payload
    assert net.SerializeToString() == b"\xa2\x06" + bytes([len(layer_bytes)]) + layer_bytes


def test_unpacked_numbers_are_read_as_well_as_packed_ones() -> None:
    unpacked = bytes.fromhex("2d0000803f2d00000040")
    assert list(caffe_pb2.BlobProto.FromString(unpacked).data) == [1.0, 2.0]


def test_deepspark_defaults() -> None:
    settings = deepspark_pb2.DeepSparkParameter(period=50, moving_rate=0.1)
    assert (settings.decay_rate, settings.decay_step, settings.decay_limit) == (1, -1, -1)
    assert settings.server_factor == 1
    assert settings.factor_decay_rate == 1
    assert (settings.factor_decay_step, settings.factor_decay_limit) == (-1, -1)


def test_messages_can_be_pickled() -> None:
    net = caffe_pb2.NetParameter(name="sent to a worker")
    assert pickle.loads(pickle.dumps(net)) == net


@pytest.fixture(scope="module")
def regenerated() -> dict[str, str]:
    pytest.importorskip("grpc_tools", reason="regenerating needs grpcio-tools")
    return generate.generated()


def test_regenerating_gives_the_same_schema(regenerated: dict[str, str]) -> None:
    assert sorted(regenerated) == sorted(path.name for path in PROTO.glob("*_pb2.py*"))
    for name in ("caffe_pb2.py", "deepspark_pb2.py"):
        made, kept = (
            [line for line in text.splitlines() if line.startswith("DESCRIPTOR = ")]
            for text in (regenerated[name], (PROTO / name).read_text(encoding="utf-8"))
        )
        assert made == kept
        assert len(made) == 1


def test_regenerating_gives_the_same_text(regenerated: dict[str, str]) -> None:
    if importlib.metadata.version("grpcio-tools") != generate.GRPCIO_TOOLS:
        pytest.skip(f"other versions than grpcio-tools {generate.GRPCIO_TOOLS} write other code")
    for name, text in regenerated.items():
        assert text == (PROTO / name).read_text(encoding="utf-8"), name
