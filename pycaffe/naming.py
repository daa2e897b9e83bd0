"""The package under Caffe's name, for scripts that say `import caffe`."""

from __future__ import annotations

import sys

from prototxt_parser.errors import PrototxtError
from prototxt_parser.user_code import OUR_CAFFE, name_our_package_caffe


def install_as_caffe() -> None:
    """Have `import caffe`, and of what is in it, find this package from now on.

    Raises:
        PrototxtError: Another `caffe` is imported already.
    """
    ours = sys.modules[OUR_CAFFE]
    if sys.modules.get("caffe", ours) is not ours:
        raise PrototxtError(
            f"another caffe is imported, {sys.modules['caffe']}: call install_as_caffe before that"
        )
    for name, module in list(sys.modules.items()):
        if name == OUR_CAFFE or name.startswith(f"{OUR_CAFFE}."):
            sys.modules[f"caffe{name.removeprefix(OUR_CAFFE)}"] = module
    name_our_package_caffe()
