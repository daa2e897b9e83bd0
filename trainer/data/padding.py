"""Training images with a border, from which crops of the images' own size are drawn.

The papers on residual nets pad CIFAR's images by 4 pixels and crop 32 x 32 at random; Caffe's Data
layer only crops, so the border has to be in the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prototxt_parser.proto import caffe_pb2
from trainer.data.database import open_database
from trainer.data.datum import decode_datum, parse_datum
from trainer.data.entries import Entry
from trainer.data.layout import MEAN_FILE, Layout
from trainer.data.mean_file import read_mean


def write_padded(out: Path, layout: Layout, pad: int) -> list[Path]:
    """Write the training images of a set once more, with `pad` pixels more on all sides.

    The border has the mean colour, rounded, which comes close to 0 when the mean is subtracted.

    Args:
        out: Folder with the complete set.
        layout: Of the set, which has a mean file.
        pad: At least 1.

    Returns:
        What was written: `<name>_train_pad<pad>_<backend>`, unless it is there.

    Raises:
        UsageError: A database of that name was made of anything else.
        DataError: The set is damaged, or writing failed.
    """
    return layout.add(
        out,
        f"{layout.name}_train_pad{pad}_{layout.backend}",
        lambda: _padded_entries(out / layout.train, layout.backend, channel_means(out), pad),
    )


def channel_means(out: Path) -> NDArray[np.float64]:
    """Return the mean colour of the set in folder `out`, which has a mean file.

    Shape: (C).
    """
    means: NDArray[np.float64] = read_mean(out / MEAN_FILE).mean(axis=(1, 2), dtype=np.float64)
    return means


def _padded_entries(
    database: Path, backend: str, means: NDArray[np.float64], pad: int
) -> Iterator[Entry]:
    colour = np.rint(means).astype(np.uint8)[:, None, None]
    reader = open_database(database, backend)
    try:
        for _ in range(reader.count):
            datum = parse_datum(reader.value)
            image = decode_datum(datum)
            channels, height, width = image.shape
            shape = (channels, height + 2 * pad, width + 2 * pad)
            padded = np.broadcast_to(colour, shape).copy()
            padded[:, pad:-pad, pad:-pad] = image
            new = caffe_pb2.Datum(
                channels=channels,
                height=shape[1],
                width=shape[2],
                data=padded.tobytes(),
                label=datum.label,
            )
            yield reader.key, new.SerializeToString()
            reader.advance()
    finally:
        reader.close()
