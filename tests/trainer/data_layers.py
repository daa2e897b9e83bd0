"""Data layers as text, and feeds of them, for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray
from PIL import Image

from prototxt_parser.data_spec import DataSpec
from prototxt_parser.proto import caffe_pb2
from trainer.data.feed import NetFeed, open_feed


def layer(
    layer_type: str, settings: str, tops: str = "data label", phase: str = "TRAIN"
) -> DataSpec:
    """Return the data layer "in" at net.prototxt:3:1 with tops of these names."""
    names = " ".join(f'top: "{top}"' for top in tops.split())
    text = f'name: "in" type: "{layer_type}" {names} {settings}'
    param = text_format.Parse(text, caffe_pb2.LayerParameter())
    return DataSpec(param, caffe_pb2.Phase.Value(phase), "net.prototxt:3:1")


@contextmanager
def opened(*specs: DataSpec, seed: int = 5, **settings: Any) -> Iterator[NetFeed]:
    """Give the feed of some layers and close it."""
    feed = open_feed(specs, seed=seed, **settings)
    try:
        yield feed
    finally:
        feed.close()


def batches(feed: NetFeed, top: str, count: int) -> list[Any]:
    """Return a top of the next batches, as lists."""
    return [feed.next()[top].tolist() for _ in range(count)]


def save_picture(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Write pixels (C, H, W), channels in the order B, G, R, as a file without loss."""
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = pixels[::-1].transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(picture)).save(file)
