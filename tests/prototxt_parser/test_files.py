"""Finding prototxt files, and reading them with the place of every layer."""

import shutil
from pathlib import Path

import pytest

from golden_cases import GOLDEN
from prototxt_parser.definition import NetDefinition
from prototxt_parser.errors import PrototxtError
from prototxt_parser.files import find_model, list_models, read_net, read_solver, read_text
from prototxt_parser.proto import caffe_pb2

UPGRADES = GOLDEN / "formats" / "upgrade"


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run each test in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_bare_names_are_found_among_the_shipped_models() -> None:
    found = find_model("lenet.prototxt")
    assert found.is_absolute()
    assert found.name == "lenet.prototxt"
    assert found.parent == find_model(Path("googlenet.prototxt")).parent


def test_file_in_the_working_directory_hides_the_shipped_one(working_directory: Path) -> None:
    Path("lenet.prototxt").write_text('name: "mine"', encoding="utf-8")
    assert find_model("lenet.prototxt").resolve() == working_directory / "lenet.prototxt"
    assert read_net("lenet.prototxt").param.name == "mine"


def test_paths_are_taken_as_they_are(working_directory: Path) -> None:
    path = working_directory / "nets" / "own.prototxt"
    path.parent.mkdir()
    path.write_text('name: "own"', encoding="utf-8")
    assert find_model(path) == path
    assert read_net("nets/own.prototxt") == NetDefinition(
        caffe_pb2.NetParameter(name="own"), "nets/own.prototxt"
    )


@pytest.mark.parametrize("name", ["lennet.prototxt", "lenet"])
def test_missing_bare_name_says_where_it_looked_and_what_is_near(
    name: str, working_directory: Path
) -> None:
    with pytest.raises(PrototxtError) as caught:
        find_model(name)
    message = str(caught.value)
    assert message.startswith(f"{name}: no such file; looked in ")
    assert str(working_directory) in message
    assert str(find_model("lenet.prototxt").parent) in message
    assert 'did you mean "lenet.prototxt"' in message


def test_missing_path_is_not_looked_for_among_the_models(working_directory: Path) -> None:
    with pytest.raises(PrototxtError, match=r"no such file; looked in .*nets$"):
        find_model("nets/lenet.prototxt")
    with pytest.raises(PrototxtError, match=r"^\./lenet.prototxt: no such file"):
        find_model("./lenet.prototxt")


def test_name_that_no_system_takes() -> None:
    with pytest.raises(PrototxtError, match="File name too long"):
        find_model("a" * 5000)


def test_list_models() -> None:
    names = list_models()
    assert names == sorted(set(names))
    assert {"alexnet.prototxt", "cifar10_quick_solver_lr1.prototxt"} <= set(names)
    assert all(find_model(name).is_file() for name in names)


def test_folder_is_refused(working_directory: Path) -> None:
    Path("folder.prototxt").mkdir()
    with pytest.raises(PrototxtError, match=r"^folder.prototxt: cannot be read: Is a directory$"):
        read_net("folder.prototxt")


def test_file_that_vanishes_is_an_error(working_directory: Path) -> None:
    with pytest.raises(PrototxtError, match="gone: cannot be read: No such file"):
        read_text(working_directory / "gone")


@pytest.mark.parametrize("name", ["v0.caffemodel", "modern_legacy_shapes.caffemodel"])
def test_weights_given_as_text_are_refused(name: str) -> None:
    path = GOLDEN / "formats" / "legacy" / "v1_v0_models" / name
    with pytest.raises(PrototxtError, match=r"not text but a binary file; are these weights\?"):
        read_net(path)


def test_byte_order_mark_is_skipped(working_directory: Path) -> None:
    Path("bom.prototxt").write_bytes(b'\xef\xbb\xbfname: "n"')
    assert read_net("bom.prototxt").param.name == "n"


def test_comments_may_be_in_any_encoding(working_directory: Path) -> None:
    Path("chinese.prototxt").write_bytes(b"# " + "卷积".encode("gbk") + b'\nname: "\xc3\xa9"')
    assert read_net("chinese.prototxt").param.name == "é"


def test_strings_are_utf_8(working_directory: Path) -> None:
    Path("latin.prototxt").write_bytes(b'# one\nname: "\xe9t\xe9"\n')
    words = "latin.prototxt:2:7: this string is not UTF-8; convert the file"
    with pytest.raises(PrototxtError, match=words):
        read_net("latin.prototxt")


def test_errors_carry_the_path_as_it_was_found() -> None:
    Path("bad.prototxt").write_text("\n layer { bias: 1 }", encoding="utf-8")
    with pytest.raises(PrototxtError, match=r'^bad.prototxt:2:10: unknown field "bias"'):
        read_net("bad.prototxt")


def test_places_of_layers() -> None:
    Path("n.prototxt").write_text('name: "n"\nlayer { }\n  layer { }', encoding="utf-8")
    definition = read_net("n.prototxt")
    assert definition.places == ("n.prototxt:2:1", "n.prototxt:3:3")
    assert [definition.place(index) for index in range(3)] == [*definition.places, ""]


def test_places_stay_with_their_layers_through_an_upgrade(working_directory: Path) -> None:
    shutil.copy(UPGRADES / "v0_padding_and_fillers.in.prototxt", "v0.prototxt")
    lines = Path("v0.prototxt").read_text(encoding="utf-8").splitlines()
    definition = read_net("v0.prototxt")
    assert len(definition.places) == len(definition.param.layer) == 6
    assert definition.place(0) == ""
    for layer, place in list(zip(definition.param.layer, definition.places, strict=True))[1:]:
        line = int(place.split(":")[1])
        assert f'name: "{layer.name}"' in "".join(lines[line - 1 : line + 1])


def test_read_solver_upgrades_and_opens_no_net() -> None:
    Path("s.prototxt").write_text(
        'net: "nowhere.prototxt" solver_type: ADAM snapshot_prefix: "out/s"', encoding="utf-8"
    )
    assert read_solver("s.prototxt") == caffe_pb2.SolverParameter(
        net="nowhere.prototxt", type="Adam", snapshot_prefix="out/s"
    )


def test_snapshot_prefix_follows_the_solver_file(working_directory: Path) -> None:
    folder = working_directory / "runs"
    folder.mkdir()
    (folder / "my.solver.prototxt").write_text("max_iter: 5", encoding="utf-8")
    (folder / "into.prototxt").write_text(f'snapshot_prefix: "{folder}"', encoding="utf-8")
    assert read_solver("runs/my.solver.prototxt").snapshot_prefix == "runs/my.solver"
    assert read_solver("runs/into.prototxt").snapshot_prefix == str(folder / "into")


def test_solver_errors_name_the_file() -> None:
    Path("s.prototxt").write_text('type: "SGD" solver_type: SGD', encoding="utf-8")
    with pytest.raises(PrototxtError, match=r"^s.prototxt: type and solver_type"):
        read_solver("s.prototxt")
    Path("t.prototxt").write_text("base_lr: 0,01", encoding="utf-8")
    with pytest.raises(PrototxtError, match=r'^t.prototxt:1:12: unknown field "01"'):
        read_solver("t.prototxt")
