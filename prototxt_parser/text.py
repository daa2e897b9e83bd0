"""Prototxt text to message and back, with errors that a person can act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from prototxt_parser.custom_fields import (
    empty_layer_field,
    layer_field_names,
    layer_fields,
    set_layer_field,
)
from prototxt_parser.errors import PrototxtError
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text_scan import Block, find_blocks, scan

M = TypeVar("M", bound=Message)

# Says an error: the parser's words, the message that was read, the token where it happened.
_Words = Callable[[re.Match[str], Message, str], str]

_LONGEST_QUOTE = 60
_TOKEN = re.compile(r'"[^"\n]*"?|\'[^\'\n]*\'?|[\w.+-]+|\S')


def parse_text(text: str, message: M, filename: str) -> M:
    """Fill a message from text.

    Args:
        text: Prototxt.
        message: An empty message; filled in place.
        filename: What errors call the text.

    Returns:
        `message`.

    Raises:
        PrototxtError: The text is not a message of this type; says where and what was expected.
    """
    if "\0" in text:
        raise PrototxtError(f"{filename}: not text but a binary file; are these weights?")
    places = scan(text, filename)
    added = layer_field_names() if isinstance(message, caffe_pb2.NetParameter) else []
    blocks = find_blocks(text, added, filename) if added else []
    try:
        text_format.Parse(_without(text, blocks), message)
    except text_format.ParseError as error:
        raise PrototxtError(_located(error, text, message, filename)) from None
    missing = message.FindInitializationErrors()  # type: ignore[attr-defined]  # not in the stubs
    if missing:
        raise PrototxtError(_missing(missing[0], places, filename))
    if isinstance(message, caffe_pb2.NetParameter):
        _set_added_fields(message, text, blocks, filename)
    return message


def print_text(message: Message) -> str:
    """Return a message as prototxt, which `parse_text` reads back to an equal message."""
    printed = text_format.MessageToString(
        message, as_utf8=True, message_formatter=_print_added_fields
    )
    # Whole numbers of float fields without a fraction, as Caffe's tools write them.
    return re.sub(r"^( *\w+: -?\d+)\.0$", r"\1", printed, flags=re.MULTILINE)


def _without(text: str, blocks: Iterable[Block]) -> str:
    """Return a text with blanks instead of `blocks`: all else stays in its place."""
    for block in blocks:
        blank = re.sub(r"[^\n]", " ", text[block.start : block.end + 1])
        text = text[: block.start] + blank + text[block.end + 1 :]
    return text


def _set_added_fields(
    net: caffe_pb2.NetParameter, text: str, blocks: Iterable[Block], filename: str
) -> None:
    """Read the fields that users have added to Caffe's."""
    for block in blocks:
        (line, column), layer = block.place, net.layer[block.layer]
        if block.name in layer_fields(layer):
            raise PrototxtError(
                f'{filename}:{line}:{column}: "{block.name}" of LayerParameter may be given only '
                "once"
            )
        # In front of it as much nothing as makes the parser count lines and columns right.
        alone = "\n" * (line - 1) + " " * (column - 1) + text[block.inside : block.end]
        value = parse_text(alone, empty_layer_field(block.name), filename)
        set_layer_field(layer, block.name, value)


def _print_added_fields(message: Message, indent: int, as_one_line: bool) -> str | None:
    """Print a layer that has fields of users; nothing for any other message."""
    del as_one_line
    if not isinstance(message, caffe_pb2.LayerParameter):
        return None
    added = layer_fields(message)
    if not added:
        return None
    margin = " " * indent
    lines = [text_format.MessageToString(message, as_utf8=True, indent=indent)]
    for name, value in added.items():
        inside = text_format.MessageToString(value, as_utf8=True, indent=indent + 2)
        lines.append(f"{margin}{name} {{\n{inside}{margin}}}\n")
    # The printer puts the first margin and the last line's end itself.
    return "".join(lines).removeprefix(margin).removesuffix("\n")


def layer_positions(text: str) -> list[tuple[int, int]]:
    """Find the layers of a net's text.

    Returns:
        Line and column, counted from 1, of each `layer` or `layers` block, in order.

    Raises:
        PrototxtError: A bracket or a quote has no partner, or brackets nest too deep.
    """
    return scan(text, "prototxt")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean "a" or "b"?` with the names most like `name`, or nothing."""
    # Likeness costs the product of the lengths, and no name of ours is that long.
    spelled = {other.lower(): other for other in sorted(known)}
    near = difflib.get_close_matches(name[:_LONGEST_QUOTE].lower(), spelled, n=2, cutoff=0.75)
    choice = " or ".join(f'"{spelled[other]}"' for other in near)
    return f"; did you mean {choice}?" if choice else ""


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 3] + "..."


def _missing(path: str, places: list[tuple[int, int]], filename: str) -> str:
    """Words for a required field that is absent, such as `layer[3].clip_param.min`."""
    owner, _, field = path.rpartition(".")
    where = filename
    layer = re.match(r"layers?\[(\d+)\]", path)
    if layer:
        line, column = places[int(layer[1])]
        where = f"{filename}:{line}:{column}"
    return f'{where}: missing required field "{field}"' + (f" of {owner}" if owner else "")


def _located(error: text_format.ParseError, text: str, message: Message, filename: str) -> str:
    """Words for a parser's error: place, then what is wrong there."""
    line, column = error.GetLine() or 1, error.GetColumn() or 1
    content = text.split("\n")[line - 1]
    # The parser quotes the whole line, nothing at the end, in front of some of its messages.
    reason = str(error).removeprefix(f"{line}:{column} : ")
    reason = reason.removeprefix(f"'{content}': ").removeprefix("'': ")
    token = _TOKEN.match(content, column - 1)
    received = _short(token[0]) if token else "the end of the text"
    for pattern, words in _WORDS:
        found = pattern.match(reason)
        if found:
            return f"{filename}:{line}:{column}: {words(found, message, received)}"
    return f"{filename}:{line}:{column}: {_short(reason)}"


def _unknown_field(found: re.Match[str], root: Message, received: str) -> str:
    owner = root.DESCRIPTOR.file.pool.FindMessageTypeByName(found[1])
    hint = did_you_mean(found[2], owner.fields_by_name)
    return f'unknown field "{_short(found[2])}" in {owner.name}{hint}'


def _unknown_value(found: re.Match[str], root: Message, received: str) -> str:
    kind = root.DESCRIPTOR.file.pool.FindEnumTypeByName(found[1])
    expected = ", ".join(value.name for value in kind.values)
    return f"unknown value {received} for {kind.name}; expected one of {expected}"


def _repeated_field(found: re.Match[str], root: Message, received: str) -> str:
    owner = root.DESCRIPTOR.file.pool.FindMessageTypeByName(found[1])
    return f'"{found[2]}" of {owner.name} may be given only once'


def _not_utf8(found: re.Match[str], root: Message, received: str) -> str:
    # The parser is past the string by now.
    return "the string before this place is not UTF-8"


def _other_encoding(found: re.Match[str], root: Message, received: str) -> str:
    return "this string is not UTF-8; convert the file"


def _plain(expected: str) -> _Words:
    def words(found: re.Match[str], root: Message, received: str) -> str:
        return f"expected {found.expand(expected)}; received {received}"

    return words


# What the parser of protobuf says, and how to say it to a person.
_WORDS: list[tuple[re.Pattern[str], _Words]] = [
    (re.compile(r'Message type "(.+)" has no field named "(.+)"'), _unknown_field),
    (re.compile(r'Message type "(.+)" should not have multiple "(.+)" fields'), _repeated_field),
    (re.compile(r'Enum type "(.+?)" has no value'), _unknown_value),
    (re.compile(r"Couldn't parse integer"), _plain("a whole number")),
    (re.compile(r"Couldn't parse float|Invalid octal float"), _plain("a number")),
    (re.compile(r"Value out of range"), _plain("a number in the range of the field")),
    (re.compile(r'Expected "true" or "false"'), _plain("true or false")),
    (re.compile(r"Expected string"), _plain("a string in quotes")),
    (re.compile(r"Couldn't parse string"), _not_utf8),
    (re.compile(r"'utf-8' codec can't encode"), _other_encoding),
    (re.compile(r"Expected identifier|Message type .* extensions"), _plain("a field name")),
    (re.compile(r'Expected "(.)"'), _plain(r'"\1"')),
]
