"""Nets as prototxt text: layers are collected as messages, then written as the other files are."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message

from prototxt_parser.proto import caffe_pb2

_WIDTH = 100
_COMMENT = "# "


class NetWriter:
    """Layers of one net, in order, in the form for training or for use with trained weights.

    Args:
        name: Name of the net.
        comment: What stands above it in the file.
        deploy: Leave out fillers and whatever only training and testing need.
    """

    def __init__(self, name: str, comment: str, *, deploy: bool) -> None:
        self.param = caffe_pb2.NetParameter(name=name)
        self.deploy = deploy
        self._comment = comment

    def add(
        self, name: str, type_: str, bottoms: Sequence[str], top: str = "", **settings: Any
    ) -> str:
        """Append a layer and return its top, which has the layer's name if none is given."""
        self.param.layer.add(name=name, type=type_, bottom=bottoms, top=[top or name], **settings)
        return top or name

    def text(self) -> str:
        """Return the file."""
        comment = textwrap.wrap(
            self._comment, _WIDTH - 2, initial_indent=_COMMENT, subsequent_indent=_COMMENT
        )
        return "\n".join([*comment, *_lines(self.param, "")]) + "\n"

    def data(
        self,
        sources: tuple[str, str],
        batch_sizes: tuple[int, int],
        image: tuple[int, int, int],
        mean: Sequence[float],
    ) -> str:
        """Append one Data layer per phase or, in the deploy form, an Input for one image."""
        if self.deploy:
            shape = {"dim": [1, *image]}
            return self.add("data", "Input", [], input_param={"shape": [shape]})
        for phase, source, batch_size in zip((0, 1), sources, batch_sizes, strict=True):
            mirror = phase == caffe_pb2.TRAIN
            self.param.layer.add(
                name="data",
                type="Data",
                top=["data", "label"],
                include=[{"phase": phase}],
                transform_param={"mirror": mirror, "crop_size": image[-1], "mean_value": mean},
                data_param={"source": source, "batch_size": batch_size, "backend": "LMDB"},
            )
        return "data"

    def convolution(
        self,
        name: str,
        bottom: str,
        num_output: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        *,
        padded: bool = True,
    ) -> str:
        """Append a convolution without bias, by default padded by half its kernel."""
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        settings: dict[str, Any] = {"num_output": num_output, "bias_term": False}
        if height == width:
            settings["kernel_size"] = [height]
        else:
            settings |= {"kernel_h": height, "kernel_w": width}
        if padded and height == width > 1:
            settings["pad"] = [height // 2]
        elif padded and height != width:
            settings |= {"pad_h": height // 2, "pad_w": width // 2}
        if stride > 1:
            settings["stride"] = [stride]
        if not self.deploy:
            settings["weight_filler"] = {"type": "msra"}
        return self.add(name, "Convolution", [bottom], convolution_param=settings)

    def normalise(self, norm: str, scale: str, blob: str, **settings: Any) -> str:
        """Append batch normalisation and the learned scale and shift after it, both in place."""
        self.add(norm, "BatchNorm", [blob], blob, batch_norm_param=settings)
        return self.add(scale, "Scale", [blob], blob, scale_param={"bias_term": True})

    def relu(self, name: str, blob: str) -> str:
        """Append a rectifier in place."""
        return self.add(name, "ReLU", [blob], blob)

    def classifier(self, name: str, bottom: str, num_classes: int) -> str:
        """Append a fully connected layer."""
        settings: dict[str, Any] = {"num_output": num_classes}
        if not self.deploy:
            settings["weight_filler"] = {"type": "msra"}
        return self.add(name, "InnerProduct", [bottom], inner_product_param=settings)

    def finish(self, scores: str, top_k: Sequence[int] = (1,)) -> None:
        """Append accuracies and loss or, in the deploy form, the probabilities."""
        if self.deploy:
            self.add("prob", "Softmax", [scores])
            return
        for k in top_k:
            settings: dict[str, Any] = {"accuracy_param": {"top_k": k}} if k > 1 else {}
            name = "accuracy" if k == 1 else f"accuracy_top{k}"
            self.add(name, "Accuracy", [scores, "label"], include=[{"phase": "TEST"}], **settings)
        self.add("loss", "SoftmaxWithLoss", [scores, "label"])


def _lines(message: Message, indent: str) -> Iterator[str]:
    for field, value in message.ListFields():
        for item in value if field.is_repeated else [value]:
            out = StringIO()
            text_format.PrintField(field, item, out, as_one_line=True)
            line = indent + out.getvalue().strip()
            fits = bool(indent) and len(line) <= _WIDTH
            if fits or not isinstance(item, Message):
                yield line
            else:
                yield f"{indent}{field.name} {{"
                yield from _lines(item, indent + "  ")
                yield indent + "}"
