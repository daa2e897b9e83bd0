"""Caffe's messages and the fields in them, in words."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from prototxt_parser.proto import caffe_pb2

_FILE = FileDescriptorProto()
caffe_pb2.DESCRIPTOR.CopyToProto(_FILE)
_MESSAGES = {message.name: message for message in _FILE.message_type}


@dataclass(frozen=True)
class Field:
    """A field of a message.

    Attributes:
        name: Its name.
        number: Its number.
        message: Name of the message that is its type, "" for other types.
        type: Its type in words; an enum by its values.
        default: The declared default, `required`, or `-` where there is neither.
    """

    name: str
    number: int
    message: str
    type: str
    default: str


def fields(message: str) -> dict[str, Field]:
    """Return the fields of a message, by name in the schema's order."""
    return {proto.name: _field(proto) for proto in _MESSAGES[message].field}


def _field(proto: FieldDescriptorProto) -> Field:
    kind, message = FieldDescriptorProto.Type.Name(proto.type).removeprefix("TYPE_").lower(), ""
    if proto.type == proto.TYPE_MESSAGE:
        kind = message = proto.type_name.rpartition(".")[2]
    elif proto.type == proto.TYPE_ENUM:
        kind = " ".join(_enum_values(proto.type_name))
    if proto.label == proto.LABEL_REPEATED:
        kind += ", repeated"
    return Field(proto.name, proto.number, message, kind, _default(proto))


def _enum_values(type_name: str) -> list[str]:
    """Return the values of `.caffe.Phase` or `.caffe.Message.Enum`."""
    *_, owner, name = type_name.split(".")
    enums = _MESSAGES[owner].enum_type if owner in _MESSAGES else _FILE.enum_type
    return [value.name for enum in enums if enum.name == name for value in enum.value]


def _default(proto: FieldDescriptorProto) -> str:
    if proto.label == proto.LABEL_REQUIRED:
        return "required"
    if proto.type == proto.TYPE_FLOAT and proto.default_value:
        return f"{float(proto.default_value):g}"  # written with the digits of a float64
    return proto.default_value or "-"
