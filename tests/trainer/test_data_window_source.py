"""WindowData: windows, draws, mean and scale, places, refusals."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from data_layers import batches, layer, opened, save_picture
from image_databases import images
from numpy.typing import NDArray

from prototxt_parser.data_spec import DataSpec
from trainer.data.feed import open_feed
from trainer.data.mean_file import write_mean
from trainer.data.window_crop import cut_window
from trainer.data.window_file import Window, read_windows
from trainer.errors import DataError, UsageError

HEIGHT, WIDTH = 31, 43
CROP = 16
WINDOWS = ["3 0.9 5 6 20 22", "7 0.5 0 0 42 30", "4 0.3 1 1 3 3", "9 0.1 10 2 30 12", "2 0 3 3 8 9"]


def entry(number: int, name: str, windows: list[str], channels: int = 3) -> str:
    lines = [f"# {number}", name, str(channels), str(HEIGHT), str(WIDTH), str(len(windows))]
    return "\n".join([*lines, *windows]) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures with five windows each, two of them foreground and two background."""
    text = ""
    for number, pixels in enumerate(images(2, 3, HEIGHT, WIDTH)):
        save_picture(tmp_path / f"{number}.png", pixels)
        text += entry(number, f"{number}.png", WINDOWS)
    (tmp_path / "windows.txt").write_text(text)
    return tmp_path


def window_layer(
    folder: Path,
    settings: str = "bg_threshold: 0.3",
    *,
    batch_size: int = 8,
    transform: str = f"crop_size: {CROP}",
    **others: Any,
) -> DataSpec:
    text = f'source: "{folder}/windows.txt" root_folder: "{folder}/" batch_size: {batch_size}'
    return layer(
        "WindowData",
        f"transform_param {{ {transform} }} window_data_param {{ {text} {settings} }}",
        **others,
    )


def test_windows_are_divided_by_their_overlap(folder: Path) -> None:
    found = read_windows(folder / "windows.txt", 0.5, 0.3)
    assert found.images == ["0.png", "1.png"]
    assert [tuple(window) for window in found.foreground] == [
        (0, 3, 5, 6, 20, 22, 7),
        (0, 7, 0, 0, 42, 30, 8),
        (1, 3, 5, 6, 20, 22, 18),
        (1, 7, 0, 0, 42, 30, 19),
    ]
    assert [(w.image, w.label, w.line) for w in found.background] == [
        (0, 0, 10),
        (0, 0, 11),
        (1, 0, 21),
        (1, 0, 22),
    ]


@pytest.mark.parametrize(
    ("batch_size", "fraction", "foreground"),
    [(8, 0.25, 2), (10, 0.3, 3), (10, 0.29, 2), (7, 0, 0), (5, 1, 5), (100, 0.07, 7)],
)
def test_background_comes_first_in_its_share(
    folder: Path, batch_size: int, fraction: float, foreground: int
) -> None:
    settings = f"bg_threshold: 0.3 fg_fraction: {fraction}"
    with opened(window_layer(folder, settings, batch_size=batch_size)) as feed:
        assert feed.shapes == {"data": (batch_size, 3, CROP, CROP), "label": (batch_size,)}
        for labels in batches(feed, "label", 3):
            assert labels[: batch_size - foreground] == [0] * (batch_size - foreground)
            assert set(labels[batch_size - foreground :]) <= {3, 7}


def test_every_window_is_drawn_about_equally_often(folder: Path) -> None:
    settings = "bg_threshold: 0.3 fg_fraction: 1"
    transform = f"crop_size: {CROP} mirror: true"
    with opened(window_layer(folder, settings, batch_size=800, transform=transform)) as feed:
        data = feed.next()["data"].numpy()
    counts = Counter(crop.tobytes() for crop in data)
    assert len(counts) == 8, "four windows, mirrored or not"
    assert min(counts.values()) > 60


def test_draws_repeat_with_the_seed_and_differ_between_workers(folder: Path) -> None:
    def read(seed: int, rank: int) -> list[Any]:
        with opened(window_layer(folder), seed=seed, rank=rank, world_size=2) as feed:
            return batches(feed, "data", 3)

    assert read(5, 0) == read(5, 0)
    assert read(5, 0) != read(6, 0)
    assert read(5, 0) != read(5, 1)


def test_a_feed_goes_on_exactly_from_a_saved_position(folder: Path) -> None:
    spec = window_layer(folder, transform=f"crop_size: {CROP} mirror: true")
    with opened(spec) as feed:
        batches(feed, "label", 5)
        state = json.loads(json.dumps(feed.state_dict()))
        wanted = batches(feed, "data", 4)
    with opened(spec) as again:
        again.load_state_dict(state)
        assert batches(again, "data", 4) == wanted
    with opened(spec) as skipping:
        skipping.skip(5)
        assert batches(skipping, "data", 4) == wanted


@pytest.fixture
def single(folder: Path) -> Path:
    """One background window, so that nothing but mirroring is drawn; it needs context above."""
    (folder / "windows.txt").write_text(entry(0, "0.png", ["9 0.1 10 2 30 12"]))
    return folder


def only(folder: Path, settings: str = "", transform: str = "") -> NDArray[np.float32]:
    spec = window_layer(
        folder,
        f"fg_fraction: 0 {settings}",
        batch_size=1,
        transform=f"crop_size: {CROP} {transform}",
    )
    with opened(spec) as feed:
        return feed.next()["data"].numpy()[0]


def test_the_scale_is_that_of_the_windows_and_not_of_the_transform(single: Path) -> None:
    plain = only(single)
    np.testing.assert_array_equal(only(single, "scale: 0.5", "scale: 9"), plain / 2)
    ignored = 'mean_file: "none" crop_size: 3 mirror: true'
    np.testing.assert_array_equal(only(single, ignored), plain)


def test_what_is_beyond_the_image_is_zero_after_the_mean(single: Path) -> None:
    context = "context_pad: 5"
    plain = only(single, context)
    beyond = (plain == 0).all(axis=0)
    assert beyond[0].all()
    assert not beyond[CROP // 2, CROP // 2]
    values = np.array([104, 117, 123], np.float32)[:, None, None]
    got = only(single, context, "mean_value: 104 mean_value: 117 mean_value: 123")
    np.testing.assert_array_equal(got, np.where(beyond, 0, plain - values))
    got = only(single, context, "mean_value: 9")
    np.testing.assert_array_equal(got, np.where(beyond, 0, plain - 9))
    mean = np.random.default_rng(3).uniform(0, 255, (3, 30, 21)).astype(np.float32)
    write_mean(single / "mean", mean)
    got = only(single, context, f'mean_file: "{single}/mean"')
    first = (21 - CROP) // 2
    window = mean[:, first : first + CROP, first : first + CROP]
    np.testing.assert_array_equal(got, np.where(beyond, 0, plain - window))


@pytest.mark.parametrize("shape", [(3, 16, 15), (3, 17, 20), (1, 30, 30)])
def test_a_mean_that_does_not_hold_the_crop_is_refused(
    single: Path, shape: tuple[int, int, int]
) -> None:
    write_mean(single / "mean", np.zeros(shape, np.float32))
    with pytest.raises(DataError, match=r"must have 3 channels and hold a window of crop_size 16"):
        only(single, "", f'mean_file: "{single}/mean"')


def test_cached_images_are_read_once(folder: Path) -> None:
    with (
        opened(window_layer(folder, "bg_threshold: 0.3 cache_images: true")) as cached,
        opened(window_layer(folder)) as plain,
    ):
        assert batches(cached, "data", 20) == batches(plain, "data", 20)
        for number in range(2):
            (folder / f"{number}.png").unlink()
        batches(cached, "label", 20)
        with pytest.raises(DataError, match=r"windows.txt:\d+: image [01].png: .* cannot be read"):
            batches(plain, "label", 20)


def test_a_plain_window_is_stretched_to_the_crop() -> None:
    image = images(1, 3, HEIGHT, WIDTH)[0]
    window = Window(0, 1, 5, 6, 20, 22, 1)
    inside = np.ascontiguousarray(image[:, 6:23, 5:21].transpose(1, 2, 0))
    wanted = cv2.resize(inside, (CROP, CROP)).transpose(2, 0, 1)
    plain = cut_window(image, window, crop=CROP)
    assert plain[1:] == (0, 0)
    np.testing.assert_array_equal(plain.pixels, wanted)
    mirrored = cut_window(image, window, crop=CROP, is_mirrored=True)
    np.testing.assert_array_equal(mirrored.pixels, wanted[:, :, ::-1])


@pytest.mark.parametrize(
    ("window", "is_square", "rows", "columns", "place", "mirrored_left"),
    [
        # 21 x 11 pixels about (20.5, 7.5), 16 / (16 - 2 * 4) = 2 times as large: columns -0.5 to
        # 41.5, rounded away from 0, of -1 to 42; rows -3.5 to 18.5, so -4 to 19.
        ((10, 2, 30, 12), False, (0, 20), (0, 43), (3, 0, 13, 16), 0),
        # The longer side both ways: rows 7.5 - 21 to 7.5 + 21, so -14 to 29 of 44.
        ((10, 2, 30, 12), True, (0, 30), (0, 43), (5, 0, 11, 16), 0),
        # In the corner: columns 38.5 - 8 to 38.5 + 8, so 31 to 47 of 17; rows 24 to 36 of 13.
        ((35, 27, 42, 32), False, (24, 31), (31, 43), (0, 0, 9, 11), 5),
    ],
)
def test_context_is_clipped_and_scaled(
    window: tuple[int, int, int, int],
    is_square: bool,
    rows: tuple[int, int],
    columns: tuple[int, int],
    place: tuple[int, int, int, int],
    mirrored_left: int,
) -> None:
    image = images(1, 3, HEIGHT, WIDTH)[0]
    settings = {"crop": CROP, "context_pad": 4, "is_square": is_square}
    patch = cut_window(image, Window(0, 1, *window, 1), **settings)
    top, left, height, width = place
    assert (patch.top, patch.left, *patch.pixels.shape[1:]) == (top, left, height, width)
    inside = image[:, slice(*rows), slice(*columns)].transpose(1, 2, 0)
    wanted = cv2.resize(np.ascontiguousarray(inside), (width, height)).transpose(2, 0, 1)
    np.testing.assert_array_equal(patch.pixels, wanted)
    mirrored = cut_window(image, Window(0, 1, *window, 1), is_mirrored=True, **settings)
    assert (mirrored.top, mirrored.left) == (top, mirrored_left)


@pytest.mark.parametrize(
    ("window", "context_pad"),
    [
        ((5, 6, 43, 20), 0),
        ((-1, 6, 20, 20), 0),
        ((5, 6, 20, 31), 0),
        ((100, 6, 120, 20), 0),
        ((100, 6, 120, 20), 3),
        ((-2_000_000_000, 6, 2_000_000_000, 20), 3),
    ],
)
def test_windows_that_leave_nothing_are_named(
    folder: Path, window: tuple[int, ...], context_pad: int
) -> None:
    text = " ".join(map(str, window))
    (folder / "windows.txt").write_text(entry(0, "0.png", [f"1 0.1 {text}"]))
    spec = window_layer(folder, f"fg_fraction: 0 context_pad: {context_pad}")
    with (
        opened(spec) as feed,
        pytest.raises(
            DataError, match=rf"windows.txt:7: image 0.png: window {text} leaves nothing"
        ),
    ):
        feed.next()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"windows.txt: Window file is empty"),
        (" \r\n\n", r"windows.txt: Window file is empty"),
        ("0 0.png", r":1: expected `#` before an image; received 0"),
        ("# 1", r":1: expected images numbered from 0 on, so image 0; received 1"),
        ("# 0\n0.png\n1 5 7 0", r":3: expected 3 channels, .* received 1"),
        (
            "# 0\n0.png\n3\n5\n",
            r":4: expected the width of the image; received the end of the file",
        ),
        ("# 0\n0.png 3 5 seven 1", r":2: expected the width of the image; received seven"),
        (entry(0, "0.png", ["1 0.9 1 2 3"]), r":7: expected y2; received the end of the file"),
        (
            entry(0, "0.png", ["1 much 1 2 3 4"]),
            r":7: expected the overlap of a window; rec.* much",
        ),
        (entry(0, "0.png", ["0 0.9 1 2 3 4"]), r":7: expected a class > 0 of a foreground window"),
        (entry(0, "0.png", ["1 0.9 9 2 8 4"]), r":7: expected x1 <= x2 and y1 <= y2; .* 9 2 8 4"),
        (entry(0, "0.png", ["1 0.1 1 9 8 4"]), r":7: expected x1 <= x2 and y1 <= y2; .* 1 9 8 4"),
        (entry(0, "0.png", ["1 0.1 1 2 3 99999999999"]), r":7: expected y2; received 99999999999"),
        (entry(0, "a b.png", []), r":2: expected the channels of the image; received b.png"),
        (entry(0, "0.png", ["1 0.9 1 2 3 4"]), r"expected background windows, 6 for each batch"),
        (entry(0, "0.png", ["1 0.1 1 2 3 4"]), r"expected foreground windows, 2 for each batch"),
    ],
)
def test_window_files_that_cannot_be_used_are_refused(
    folder: Path, text: str, message: str
) -> None:
    (folder / "windows.txt").write_text(text)
    with pytest.raises(DataError, match=rf'^net.prototxt:3:1: layer "in" .*{message}'):
        open_feed([window_layer(folder)], seed=5)


def test_a_window_file_that_is_a_folder_is_refused(folder: Path) -> None:
    (folder / "windows.txt").unlink()
    (folder / "windows.txt").mkdir()
    with pytest.raises(DataError, match=r"windows.txt: the window file cannot be read"):
        open_feed([window_layer(folder)], seed=5)


@pytest.mark.parametrize(
    ("transform", "settings", "message"),
    [
        ("", "", "transform_param.crop_size must be > 0; received 0"),
        ("crop_size: 16", "context_pad: 8", "must be less than half of crop_size 16; received 8"),
        ("crop_size: 16", "fg_fraction: 1.5", "fg_fraction must be 0 to 1; received 1.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    folder: Path, transform: str, settings: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        open_feed([window_layer(folder, settings, transform=transform)], seed=5)


@pytest.mark.parametrize(
    ("mean", "message"),
    [
        ("mean_value: 1 mean_value: 2", "as many as channels: 3; received 2"),
        ('mean_value: 1 mean_file: "x"', "Cannot specify mean_file and mean_value"),
        ('mean_file: "gone"', "gone does not exist"),
    ],
)
def test_means_that_cannot_be_are_refused(folder: Path, mean: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_feed([window_layer(folder, transform=f"crop_size: 9 {mean}")], seed=5)


def test_images_kept_elsewhere_are_found(folder: Path) -> None:
    text = 'source: "gone/windows.txt" root_folder: "gone/" batch_size: 8 bg_threshold: 0.3'
    moved = layer(
        "WindowData", f"transform_param {{ crop_size: 16 }} window_data_param {{ {text} }}"
    )
    with opened(moved, data_dir=folder) as feed, opened(window_layer(folder)) as plain:
        assert torch.equal(feed.next()["data"], plain.next()["data"])
