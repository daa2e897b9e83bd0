"""Message definitions in the language of `.proto` files, as far as Caffe and its forks use it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from prototxt_parser.errors import PrototxtError

_TOKEN = re.compile(
    r"""//[^\n]* | /\*.*?\*/ | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' | [\w.+-]+ | \S""",
    re.VERBOSE | re.DOTALL,
)
_LABELS = {
    "optional": FieldDescriptorProto.LABEL_OPTIONAL,
    "repeated": FieldDescriptorProto.LABEL_REPEATED,
    "required": FieldDescriptorProto.LABEL_REQUIRED,
}
_SCALARS = {
    name.removeprefix("TYPE_").lower(): number
    for name, number in FieldDescriptorProto.Type.items()
    if name not in ("TYPE_GROUP", "TYPE_MESSAGE", "TYPE_ENUM")
}


def read_proto(text: str) -> FileDescriptorProto:
    """Return what a `.proto` text of messages and enums defines.

    `extend X { … }` becomes one more message X. Statements without meaning here (syntax, package,
    import, option, reserved, extensions) are passed over.

    Raises:
        PrototxtError: Another syntax; says the line.
    """
    return _Reader(text).file()


class _Reader:
    """Reads a text from left to right, a token at a time."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._start = 0
        self._next = next(self._tokens, "")

    def file(self) -> FileDescriptorProto:
        file = FileDescriptorProto()
        while self._next:
            word = self._take()
            if word in ("message", "extend"):
                self._message(file.message_type.add())
            elif word == "enum":
                self._enum(file.enum_type.add())
            elif word != ";":
                self._pass_statement()
        return file

    def _message(self, message: DescriptorProto) -> None:
        message.name = self._take()
        self._expect("{")
        while self._next != "}":
            word = self._take()
            if word in _LABELS:
                self._field(message.field.add(label=_LABELS[word]))
            elif word == "message":
                self._message(message.nested_type.add())
            elif word == "enum":
                self._enum(message.enum_type.add())
            elif word in ("reserved", "extensions", "option"):
                self._pass_statement()
            elif word != ";":
                raise self._error(f"expected optional, repeated or required; received {word!r}")
        self._expect("}")

    def _field(self, field: FieldDescriptorProto) -> None:
        kind = self._take()
        if kind in _SCALARS:
            field.type = _SCALARS[kind]
        else:
            field.type_name = kind
        field.name = self._take()
        self._expect("=")
        field.number = self._number()
        if self._next == "[":
            while self._take() != "]":
                self._option(field)
        self._expect(";")

    def _option(self, field: FieldDescriptorProto) -> None:
        name = self._take()
        self._expect("=")
        value = self._take()
        if name == "default":
            field.default_value = ast.literal_eval(value) if value[0] in "\"'" else value
        elif name == "packed":
            field.options.packed = value == "true"

    def _enum(self, enum: EnumDescriptorProto) -> None:
        enum.name = self._take()
        self._expect("{")
        while self._next != "}":
            name = self._take()
            if name == "option":
                self._pass_statement()
                continue
            self._expect("=")
            enum.value.add(name=name, number=self._number())
            self._expect(";")
        self._expect("}")

    def _number(self) -> int:
        token = self._take()
        try:
            return int(token, 0)
        except ValueError:
            raise self._error(f"expected a number; received {token!r}") from None

    def _pass_statement(self) -> None:
        while self._take() != ";":
            pass

    def _expect(self, wanted: str) -> None:
        token = self._take()
        if token != wanted:
            raise self._error(f"expected {wanted!r}; received {token!r}")

    def _take(self) -> str:
        token = self._next
        if not token:
            raise self._error("the text ends in the middle of a definition")
        self._next = next(self._tokens, "")
        return token

    def _split(self) -> Iterator[str]:
        for found in _TOKEN.finditer(self._text):
            if not found[0].startswith(("//", "/*")):
                self._start = found.start()
                yield found[0]

    def _error(self, message: str) -> PrototxtError:
        line = self._text.count("\n", 0, self._start) + 1
        return PrototxtError(f"message definition, line {line}: {message}")
