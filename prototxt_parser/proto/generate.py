"""Generates the Python modules and stubs of the `.proto` files beside this one.

    pip install grpcio-tools==1.80.1
    python -m prototxt_parser.proto.generate

The version is fixed because it decides the text: protoc 31.1 makes modules that every protobuf from
6.31.1 on loads, version 7 included, while a newer protoc would shut the older ones out.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

GRPCIO_TOOLS = "1.80.1"

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent


def generated() -> dict[str, str]:
    """Return what the generated files should hold, by file name.

    Raises:
        subprocess.CalledProcessError: grpcio-tools is missing, or refuses a `.proto` file.
    """
    protos = [str(path.relative_to(_ROOT)) for path in sorted(_HERE.glob("*.proto"))]
    with tempfile.TemporaryDirectory() as folder:
        # From the root, so that a module knows its full name and its messages can be pickled.
        outputs = [f"--python_out={folder}", f"--pyi_out={folder}"]
        command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={_ROOT}", *outputs]
        subprocess.run([*command, *protos], check=True)
        made = sorted(Path(folder, _HERE.relative_to(_ROOT)).iterdir())
        return {path.name: path.read_text(encoding="utf-8") for path in made}


def main() -> None:
    """Write the generated files in their place."""
    for name, text in generated().items():
        (_HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
