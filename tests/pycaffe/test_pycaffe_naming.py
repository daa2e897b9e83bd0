"""Scripts that say `import caffe`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import caffe
import caffe.io
import caffe.proto.caffe_pb2 as messages
from caffe import layers as L, params as P
from caffe.proto import caffe_pb2
from caffe.pycaffe import SGDSolver
from caffe.coord_map import crop
import pycaffe, pycaffe.coord_map, prototxt_parser.proto.caffe_pb2
assert caffe is pycaffe
assert caffe.io is pycaffe.io
assert caffe.coord_map is pycaffe.coord_map
assert caffe_pb2.NetParameter is prototxt_parser.proto.caffe_pb2.NetParameter
assert caffe_pb2.NetParameter is messages.NetParameter
assert SGDSolver is caffe.SGDSolver
assert pycaffe.__spec__.name == "pycaffe"
assert caffe.__version__ == "1.0.0"
assert P.Pooling.MAX == 0
print("done")
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_unedited_scripts_find_us(tmp_path: Path) -> None:
    result = run(f"import pycaffe; pycaffe.install_as_caffe(){SCRIPT}", tmp_path)
    assert result.stdout == "done\n", result.stderr


def test_allowed_modules_find_us_without_more(tmp_path: Path) -> None:
    allow = "from prototxt_parser.layers.python import allow_python_layers as a; a('x')"
    result = run(f"{allow}{SCRIPT}", tmp_path)
    assert result.stdout == "done\n", result.stderr


def test_an_installed_caffe_stays_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "caffe.py").write_text("mine = 1")
    allow = "from prototxt_parser.layers.python import allow_python_layers as a; a('x')"
    result = run(f"{allow}; import caffe; print(caffe.mine)", tmp_path)
    assert result.stdout == "1\n", result.stderr


def test_an_imported_caffe_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "caffe.py").write_text("mine = 1")
    result = run("import caffe, pycaffe; pycaffe.install_as_caffe()", tmp_path)
    assert result.returncode == 1
    assert "another caffe is imported" in result.stderr
