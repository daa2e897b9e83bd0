"""Fields that a user's own layers add to `LayerParameter`, such as SSD's `permute_param`.

A value travels inside its `LayerParameter` under its number, as a field that Caffe's schema does
not know. So it passes through every copy, upgrade and file, and a fork's Caffe reads it there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from prototxt_parser.blobs import field
from prototxt_parser.errors import LayerError, PrototxtError
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.proto_source import read_proto

_BYTES = 2  # wire type of a message


@dataclass(frozen=True)
class _Field:
    number: int
    message: type[Message]


_FIELDS: dict[str, _Field] = {}


def add_layer_fields(proto: str) -> None:
    """Let layers of a net have more parameter messages than Caffe's.

    Args:
        proto: Text in the language of `.proto` files: messages, and which fields they are.

                message PermuteParameter { repeated uint32 order = 1; }
                extend LayerParameter { optional PermuteParameter permute_param = 202; }

            A fork's whole caffe.proto does as well: what its LayerParameter has beyond Caffe's
            counts. Types of Caffe may be used in it.

    Raises:
        PrototxtError: The text has no such field, or is wrong; a name or number is taken.
    """
    file = read_proto(proto)
    known = caffe_pb2.LayerParameter.DESCRIPTOR
    added = [
        field
        for message in file.message_type
        if message.name == "LayerParameter"
        for field in message.field
        if field.name not in known.fields_by_name
    ]
    if not added:
        raise PrototxtError("message definition: no field for LayerParameter that Caffe lacks")
    messages = _message_classes(file)
    for new in added:
        if new.type_name not in messages or new.label == new.LABEL_REPEATED:
            raise PrototxtError(
                f"{new.name}: expected an optional message that the text defines; received type "
                f"{new.type_name or 'of a plain value'}"
            )
        _add(new.name, _Field(new.number, messages[new.type_name]))


def _message_classes(file: FileDescriptorProto) -> dict[str, type[Message]]:
    """Return the classes of the messages that Caffe's schema lacks, by name."""
    schema = caffe_pb2.DESCRIPTOR
    new = FileDescriptorProto(dependency=[schema.name])
    new.message_type.extend(
        message for message in file.message_type if message.name not in schema.message_types_by_name
    )
    new.enum_type.extend(
        enum for enum in file.enum_type if enum.name not in schema.enum_types_by_name
    )
    # Equal texts are one package; it lies within `caffe`, so that Caffe's own types are found.
    digest = hashlib.sha256(new.SerializeToString()).hexdigest()[:16]
    new.name, new.package = f"custom_{digest}.proto", f"caffe.custom_{digest}"
    found = _descriptor(new)
    return {
        name: message_factory.GetMessageClass(descriptor)
        for name, descriptor in found.message_types_by_name.items()
    }


def _descriptor(file: FileDescriptorProto) -> FileDescriptor:
    pool = descriptor_pool.Default()
    try:
        return pool.FindFileByName(file.name)
    except KeyError:
        pass  # the first time
    try:
        pool.AddSerializedFile(file.SerializeToString())
        return pool.FindFileByName(file.name)
    except TypeError as error:
        raise PrototxtError(f"message definition: {error}") from None


def _add(name: str, new: _Field) -> None:
    caffes = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_number
    owners = {number: own.name for number, own in caffes.items()}
    owners |= {own.number: other for other, own in _FIELDS.items()}
    owner = owners.get(new.number, name)
    if owner != name:
        raise PrototxtError(f"{name}: field {new.number} of LayerParameter is {owner}")
    if _FIELDS.setdefault(name, new) != new:
        raise PrototxtError(f"{name}: LayerParameter has another field of that name")


def layer_field(param: caffe_pb2.LayerParameter, name: str) -> Any:
    """Return the added message `name` of a layer's definition; an empty one if it has none.

    Raises:
        LayerError: The stored bytes are no such message.
    """
    known = _FIELDS[name]
    message = known.message()
    for unknown in _unknown_fields(param):
        if unknown.field_number == known.number and unknown.wire_type == _BYTES:
            try:
                message.MergeFromString(unknown.data)
            except DecodeError as error:
                raise LayerError(f"{name}: the stored bytes are no such message") from error
    return message


def set_layer_field(param: caffe_pb2.LayerParameter, name: str, message: Message) -> None:
    """Put an added message into a layer's definition that does not have it."""
    chunks = field(_FIELDS[name].number, [message.SerializeToString()])
    param.MergeFromString(b"".join(chunks))


def layer_field_names() -> list[str]:
    """Return the names of the added fields."""
    return list(_FIELDS)


def layer_fields(param: caffe_pb2.LayerParameter) -> dict[str, Message]:
    """Return the added messages that a layer's definition has, by name."""
    present = {unknown.field_number for unknown in _unknown_fields(param)}
    return {
        name: layer_field(param, name) for name, known in _FIELDS.items() if known.number in present
    }


def empty_layer_field(name: str) -> Message:
    """Return an empty message of an added field."""
    return _FIELDS[name].message()


def _unknown_fields(param: caffe_pb2.LayerParameter) -> list[Any]:
    fields = UnknownFieldSet(param)
    return [fields[index] for index in range(len(fields))]
