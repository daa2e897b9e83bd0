"""Live nets from definitions, their data layers connected."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

from prototxt_parser.build import build_for_state, data_specs
from prototxt_parser.definition import NetDefinition
from prototxt_parser.errors import PrototxtError
from prototxt_parser.files import find_model, list_models
from prototxt_parser.live_net import LiveNet
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.random_source import RandomSource
from prototxt_parser.user_code import UserCodeError
from pycaffe.feeds import LayerFeeds, MemoryFeed

StrPath = str | os.PathLike[str]


def build_live_net(
    definition: NetDefinition, state: caffe_pb2.NetState, random: RandomSource
) -> tuple[LiveNet, LayerFeeds]:
    """Build a net and open its data; the files are let go with the net.

    Raises:
        PrototxtError: The definition cannot be built. What a Python layer of the user raises comes
            out as it is.
    """
    with user_errors():
        specs = data_specs(definition, state)
        feeds = LayerFeeds([spec for spec in specs if spec.param.type != "MemoryData"], random.seed)
        with ExitStack() as on_failure:
            on_failure.callback(feeds.close)
            net = build_for_state(
                definition, state, input_shapes=feeds.shapes, random=random, net_type=LiveNet
            )
            on_failure.pop_all()
    live_net = cast(LiveNet, net)
    for live in live_net.live:
        if live.step.param.type == "MemoryData":
            live.feed = MemoryFeed(live.step.param)
        elif live.step.is_source:
            live.feed = feeds.by_tops.get(live.step.tops)
    weakref.finalize(live_net, feeds.close)
    return live_net, feeds


@contextmanager
def user_errors() -> Iterator[None]:
    """Raise what the user's own code raised, without what we say about it."""
    try:
        yield
    except PrototxtError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserCodeError):
            cause = cause.__cause__
        if cause is None or cause.__cause__ is None:
            raise
        raise cause.__cause__ from None


def find_prototxt(path: StrPath) -> str:
    """Return `path`, or where the shipped net or solver of that name lies if no such file is here.

    Raises:
        RuntimeError: There is neither, in Caffe's words.
    """
    name = os.fspath(path)
    return str(find_model(name)) if name in list_models() else check_file(name)


def check_file(path: StrPath) -> str:
    """Return `path` if it is a file that can be read.

    Raises:
        RuntimeError: It is not, in Caffe's words.
    """
    name = os.fspath(path)
    if not Path(name).is_file() or not os.access(name, os.R_OK):
        raise RuntimeError(f"Could not open file {name}")
    return name
