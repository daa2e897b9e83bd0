"""Archives of code for other machines: what is in them, and that they are enough."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bare_python import bare_python
from trainer.cli import main
from trainer.cluster.packing import installed_modules, modules_archive, torrefy_archive
from trainer.errors import TrainerError
from trainer.extensions import Extensions

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("prototxt_parser", "solvers", "trainer", "pycaffe")


def names(archive: Path | None) -> set[str]:
    assert archive is not None
    with zipfile.ZipFile(archive) as opened:
        return set(opened.namelist())


def run(python: Path, code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-c", code]
    return subprocess.run(
        command, cwd=cwd, env={}, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of modules that nothing else sees; what they import is forgotten."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    files = {
        "own_layer.py": "import os, own_helper, torch\nfrom own_package.part import x\n",
        "own_helper.py": "import own_layer  # in a circle\n",
        "own_package/__init__.py": "",
        "own_package/part.py": "from . import other\nx = 1\n",
        "own_package/other.py": "",
        "unused.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def test_every_module_is_in_the_archive(tmp_path: Path) -> None:
    modules = {
        path.relative_to(ROOT).as_posix().removeprefix("trainer/api/")
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    assert names(torrefy_archive(tmp_path)) == modules


def test_an_archive_is_named_by_its_content(tmp_path: Path, user: Path) -> None:
    first, again = torrefy_archive(tmp_path), torrefy_archive(tmp_path)
    assert first == again
    own = Extensions(("own_helper.py",))
    own.install()
    before = modules_archive(own, tmp_path)
    (user / "own_layer.py").write_text("y = 2\n")
    assert modules_archive(own, tmp_path) != before


def test_a_worker_imports_from_the_archive_alone(tmp_path: Path) -> None:
    python, archive = bare_python(tmp_path), torrefy_archive(tmp_path)
    code = "import trainer.cluster.spark as s, torrefy.spark, pycaffe; print(s.__file__)"
    without = run(python, code, tmp_path)
    assert "No module named 'trainer'" in without.stderr
    result = run(python, f"import sys; sys.path.insert(1, {str(archive)!r}); {code}", tmp_path)
    assert result.stdout == f"{archive}/trainer/cluster/spark.py\n", result.stderr


def test_an_archive_packs_itself(tmp_path: Path) -> None:
    python, archive = bare_python(tmp_path), torrefy_archive(tmp_path)
    code = (
        f"import sys; sys.path.insert(1, {str(archive)!r}); from pathlib import Path\n"
        "from trainer.cluster.packing import torrefy_archive; print(torrefy_archive(Path()))"
    )
    assert run(python, code, tmp_path).stdout == f"{archive}\n"


@pytest.mark.parametrize(
    "extensions",
    [
        Extensions(("own_layer.py",)),
        Extensions(("own_layer",)),
        Extensions((), ("own_layer",)),
        Extensions(("json", "own_package.part"), ("own_layer",)),
    ],
)
def test_what_the_users_modules_import_travels_with_them(
    tmp_path: Path, user: Path, extensions: Extensions
) -> None:
    here = Extensions(extensions.layer_modules, extensions.python_layers, str(user))
    here.install()
    package = {f"own_package/{name}.py" for name in ("__init__", "part", "other")}
    assert names(modules_archive(here, tmp_path)) == {"own_layer.py", "own_helper.py", *package}
    assert installed_modules(here) == ()


def test_installed_modules_do_not_travel(tmp_path: Path) -> None:
    extensions = Extensions(("json", "h5py"), ("numpy.linalg", "no_such"))
    assert modules_archive(extensions, tmp_path) is None
    assert installed_modules(extensions) == ("h5py", "numpy")


def test_a_module_that_cannot_be_read_is_named(tmp_path: Path, user: Path) -> None:
    Extensions(("own_helper",)).install()
    (user / "own_layer.py").write_text("1 +")
    with pytest.raises(TrainerError, match=r"own_layer\.py: cannot be sent to the workers"):
        modules_archive(Extensions(("own_helper",)), tmp_path)


def test_a_carried_module_passes_for_its_file(
    tmp_path: Path, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extensions = Extensions(("own_layer.py",), (), "/on/another/machine")
    here = Extensions(("own_layer.py",))
    here.install()
    archive = modules_archive(here, tmp_path)
    for name in ("own_layer", "own_helper", "own_package", "own_package.part"):
        monkeypatch.delitem(sys.modules, name)
    for name in ("own_layer.py", "own_helper.py"):
        (user / name).unlink()
    monkeypatch.setattr(sys, "path", [str(archive), *sys.path])
    extensions.install()
    assert sys.modules["own_layer"].__file__ == f"{archive}/own_layer.py"


def test_package_writes_what_spark_submit_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    assert main(["package", "--out", str(out)]) == 0
    assert f"--py-files {out}/torrefy.zip {out}/train.py" in capsys.readouterr().out
    assert "trainer/cluster/submit.py" in names(out / "torrefy.zip")
    compile((out / "train.py").read_text(), "train.py", "exec")


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["package", "--out", str(tmp_path / "file")]) == 2
    assert "file: cannot be written (File exists)" in capsys.readouterr().err
