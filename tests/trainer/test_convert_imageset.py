"""`torrefy convert-imageset` and `compute-mean`: what Caffe's tools made of the same pictures."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from leveldb_databases import GOLDEN_DATABASES, entries

from golden_cases import GOLDEN
from prototxt_parser.proto import caffe_pb2
from trainer.cli import main
from trainer.data.database import write_database
from trainer.data.datum import decode_datum, parse_datum
from trainer.data.image import decode_image

PICTURES = GOLDEN / "formats" / "pictures"


def convert(target: Path, listing: Path | str, *flags: str) -> int:
    return main(["convert-imageset", *flags, f"{PICTURES}/", str(PICTURES / listing), str(target)])


@pytest.mark.parametrize(
    ("database", "listing", "flags"),
    [
        ("raw_lmdb", "png_list.txt", []),
        ("raw_leveldb", "png_list.txt", ["-backend=leveldb"]),
        ("greyraw_lmdb", "gray_list.txt", ["-gray"]),
        ("jpg_lmdb", "jpg_list.txt", ["-encoded"]),
        ("jpg_lmdb", "jpg_list.txt", ["-encode_type", "jpg"]),
        ("png_leveldb", "png_list.txt", ["-encoded=true", "--backend", "leveldb"]),
        ("greypng_lmdb", "gray_list.txt", ["--encoded", "--gray=1"]),
        ("resizedraw_lmdb", "jpg_list.txt", ["-resize_height=15", "-resize_width=30"]),
    ],
)
def test_entries_are_caffes_to_the_byte(
    database: str, listing: str, flags: list[str], tmp_path: Path
) -> None:
    backend = database.rpartition("_")[2]
    assert convert(tmp_path / "made", listing, *flags) == 0
    assert entries(tmp_path / "made", backend) == entries(GOLDEN_DATABASES / database, backend)


def test_what_is_encoded_anew_decodes_to_caffes_pixels(tmp_path: Path) -> None:
    flags = ["-encoded", "-resize_height=16", "-resize_width=18"]
    convert(tmp_path / "made", "png_list.txt", *flags)
    ours = entries(tmp_path / "made", "lmdb")
    recorded = entries(GOLDEN_DATABASES / "reencoded_lmdb", "lmdb")
    assert [key for key, _ in ours] == [key for key, _ in recorded]
    for (_, value), (_, wanted) in zip(ours, recorded, strict=True):
        got, want = parse_datum(value), parse_datum(wanted)
        assert (got.encoded, got.label, got.channels) == (True, want.label, 0)
        np.testing.assert_array_equal(decode_datum(got), decode_datum(want))


@pytest.mark.parametrize(("listing", "flags"), [("png_list.txt", []), ("gray_list.txt", ["-gray"])])
def test_jpegs_are_encoded_as_by_opencv(listing: str, flags: list[str], tmp_path: Path) -> None:
    convert(tmp_path / "made", listing, "-encode_type=jpg", *flags)
    for key, value in entries(tmp_path / "made", "lmdb"):
        pixels = cv2.imread(
            str(PICTURES / key[9:].decode()), cv2.IMREAD_GRAYSCALE if flags else cv2.IMREAD_COLOR
        )
        encoded = parse_datum(value)
        assert encoded.data.startswith(b"\xff\xd8")
        wanted = decode_image(cv2.imencode(".jpg", pixels)[1].tobytes())
        np.testing.assert_allclose(decode_datum(encoded).astype(int), wanted, rtol=0, atol=2)


def test_one_side_alone_keeps_the_size_but_encodes_anew(tmp_path: Path) -> None:
    convert(tmp_path / "made", "jpg_list.txt", "-encoded", "-resize_width=18")
    kept = entries(GOLDEN_DATABASES / "jpg_lmdb", "lmdb")
    for (key, value), (kept_key, kept_value) in zip(
        entries(tmp_path / "made", "lmdb"), kept, strict=True
    ):
        assert key == kept_key
        assert value != kept_value
        assert decode_datum(parse_datum(value)).shape == (3, 20, 24)


def labels(database: Path) -> list[tuple[bytes, int]]:
    return [(key, parse_datum(value).label) for key, value in entries(database, "lmdb")]


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    file = tmp_path / "list.txt"
    lines = [
        "tile00.png 3",
        "gone.png 4",
        "sub dir/with space.png -5",
        "list.txt 6",
        "tile01.png x",
    ]
    file.write_text("\n".join(lines) + "\n")
    return file


def test_unreadable_images_are_left_out_and_keep_their_number(
    listing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(tmp_path / "made", listing) == 0
    assert labels(tmp_path / "made") == [
        (b"00000000_tile00.png", 3),
        (b"00000002_sub dir/with space.png", -5),
        (b"00000004_tile01.png", 0),
    ]
    output = capsys.readouterr()
    assert f"Could not open or find file {PICTURES}/gone.png" in output.err
    assert f"Could not open or find file {PICTURES}/list.txt" in output.err
    assert re.search(r"] A total of 5 images\.\n", output.err)
    assert re.search(r" convert_imageset.cpp:\d+] Processed 3 files\.\n", output.err)
    assert output.out == f"{tmp_path / 'made'}: 3 of 5 images\n"


def test_the_root_is_put_before_the_path_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("e00.png 3\n")
    command = ["convert-imageset", f"{PICTURES}/til", str(listing), str(tmp_path / "made")]
    assert main(command) == 0
    assert labels(tmp_path / "made") == [(b"00000000_e00.png", 3)]
    assert "1 of 1 images" in capsys.readouterr().out


def test_shuffling_numbers_the_images_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orders = []
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        convert(tmp_path / name, "png_list.txt", "-shuffle", "--seed", seed)
        assert "Shuffling data with seed" in capsys.readouterr().err
        found = labels(tmp_path / name)
        assert [int(key[:8]) for key, _ in found] == list(range(12))
        orders.append([(key[9:], label) for key, label in found])
    listed = [line.split() for line in (PICTURES / "png_list.txt").read_text().splitlines()]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert sorted(orders[0]) == sorted((name.encode(), int(label)) for name, label in listed)
    assert orders[0] != sorted(orders[0])


def test_progress_is_logged_every_1000_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("tile00.png 1\n" * 2001)
    convert(tmp_path / "made", listing)
    log = capsys.readouterr().err
    assert re.findall(r"Processed (\d+) files\.", log) == ["1000", "2000", "2001"]


def test_sizes_are_checked_only_if_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("tile00.png 1\nshot0.png 2\n")
    assert convert(tmp_path / "loose", listing, "-check_size", "-nocheck_size") == 0
    assert convert(tmp_path / "made", listing, "-check_size") == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert re.match(
        r"error: .*shot0.png: Incorrect data field size \d+; the first .* 1440", message
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["list.txt", "loose"]


def test_an_existing_database_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(tmp_path / "made", "png_list.txt")
    before = entries(tmp_path / "made", "lmdb")
    assert convert(tmp_path / "made", "gray_list.txt") == 2
    assert "made: exists already; remove it or choose another folder" in capsys.readouterr().err
    assert entries(tmp_path / "made", "lmdb") == before


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["-encode_type=webp"], 2, "-encode_type: expected one of jpg, jpeg, jpe, png, bmp"),
        (["-gray=maybe"], 2, "ignored explicit argument 'maybe'"),
        (["-backend=rocks"], 2, "invalid choice: 'rocks'"),
        (
            ["-resize_height=30000", "-resize_width=30000"],
            2,
            "-resize_height 30000, -resize_width 30000: an image of a database has at most",
        ),
    ],
)
def test_wrong_flags_end_with_2(
    flags: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found = convert(tmp_path / "made", "png_list.txt", *flags)
    except SystemExit as error:
        found = int(error.code or 0)
    assert found == status
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_list_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(tmp_path / "made", "gone.txt") == 1
    assert "gone.txt: the list of images cannot be read" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def channel_lines(log: str) -> list[tuple[str, str]]:
    return re.findall(r"mean_value channel \[(\d)\]: (\S+)", log)


@pytest.mark.golden("formats/mean")
@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_the_mean_is_caffes(
    backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "mean.binaryproto"
    database = GOLDEN_DATABASES / f"raw_{backend}"
    assert main(["compute-mean", f"-backend={backend}", str(database), str(target)]) == 0
    assert target.read_bytes() == (GOLDEN / "formats/mean/mean.binaryproto").read_bytes()
    log = capsys.readouterr().err
    assert channel_lines(log) == [("0", "126.842"), ("1", "125.854"), ("2", "121.371")]
    assert re.search(r" compute_image_mean.cpp:\d+] Processed 12 files\.\n", log)


def test_the_mean_of_floats_needs_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compute-mean", str(GOLDEN_DATABASES / "float_lmdb")]) == 0
    values = [
        np.array(parse_datum(value).float_data, np.float64).reshape(4, 8, 10)
        for _, value in entries(GOLDEN_DATABASES / "float_lmdb", "lmdb")
    ]
    means = np.mean(values, axis=(0, 2, 3))
    logged = [float(value) for _, value in channel_lines(capsys.readouterr().err)]
    np.testing.assert_allclose(logged, means, rtol=1e-5)


def test_a_mean_of_different_sizes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "mean.binaryproto"
    assert main(["compute-mean", str(GOLDEN_DATABASES / "sizes_lmdb"), str(target)]) == 1
    assert "sizes_lmdb: Incorrect data field size" in capsys.readouterr().err
    assert not target.exists()


def test_an_entry_without_an_image_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_database(tmp_path / "bad", [(b"k", caffe_pb2.Datum(label=3).SerializeToString())])
    assert main(["compute-mean", str(tmp_path / "bad")]) == 1
    assert "bad, key b'k': expected a Datum with pixels" in capsys.readouterr().err


def test_a_format_that_no_name_tells_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "tile"
    image.write_bytes((PICTURES / "tile00.jpg").read_bytes())
    listing = tmp_path / "list.txt"
    listing.write_text("tile 1\n")
    flags = ["-encoded", "-resize_width=5", "-resize_height=4"]
    command = ["convert-imageset", *flags, f"{tmp_path}/", str(listing), str(tmp_path / "made")]
    assert main(command) == 1
    assert "error: tile: expected a name that ends in one of jpg," in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
    assert main([*command, "-encode_type=png"]) == 0


def test_a_folder_without_any_of_the_images_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = PICTURES / "png_list.txt"
    command = ["convert-imageset", f"{tmp_path}/", str(listing), str(tmp_path / "made")]
    assert main(command) == 1
    assert f"{tmp_path}/: none of the listed images can be read" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
