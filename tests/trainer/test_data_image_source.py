"""ImageData: lists, sizes, shuffling, skipping, places, workers, refusals."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_layers import batches, layer, opened, save_picture
from image_databases import images

from prototxt_parser.data_spec import DataSpec
from trainer.data.feed import open_feed
from trainer.data.image_list import read_image_list
from trainer.errors import DataError, UsageError

COUNT = 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures, picture n with the label n, and a list of them."""
    for number, pixels in enumerate(images(COUNT)):
        save_picture(tmp_path / f"{number}.png", pixels)
    lines = [f"{number}.png {number}\n" for number in range(COUNT)]
    (tmp_path / "list.txt").write_text("".join(lines))
    return tmp_path


def image_layer(
    folder: Path, settings: str = "", *, batch_size: int = 4, more: str = "", **others: Any
) -> DataSpec:
    text = f'source: "{folder}/list.txt" root_folder: "{folder}/" batch_size: {batch_size}'
    return layer("ImageData", f"image_data_param {{ {text} {settings} }} {more}", **others)


def test_images_come_in_the_order_of_the_list_and_wrap(folder: Path) -> None:
    with opened(image_layer(folder)) as feed:
        assert feed.shapes == {"data": (4, 3, 5, 7), "label": (4,)}
        read = [feed.next() for _ in range(3)]
    expected = np.concatenate([images(COUNT), images(COUNT)[:2]])
    np.testing.assert_array_equal(torch.cat([batch["data"] for batch in read]), expected)
    assert torch.cat([batch["label"] for batch in read]).tolist() == [*range(COUNT), 0, 1]


def test_settings_are_checked_and_applied_before_the_transform(folder: Path) -> None:
    settings = "new_height: 9 new_width: 6 is_color: false"
    spec = image_layer(folder, settings, more="transform_param { crop_size: 5 mean_value: 8 }")
    with opened(spec) as feed:
        assert feed.shapes["data"] == (4, 1, 5, 5)
        assert feed.next()["data"].min() >= -8


def test_deprecated_settings_are_ignored(folder: Path) -> None:
    old = 'scale: 9 mean_file: "none" crop_size: 2 mirror: true'
    with opened(image_layer(folder, old)) as feed:
        np.testing.assert_array_equal(feed.next()["data"], images(COUNT)[:4])


def test_the_default_batch_is_one_image(folder: Path) -> None:
    source = f'source: "{folder}/list.txt" root_folder: "{folder}/"'
    spec = layer("ImageData", f"image_data_param {{ {source} }}")
    with opened(spec) as feed:
        assert feed.next()["data"].shape == (1, 3, 5, 7)


def test_every_epoch_has_its_own_order(folder: Path) -> None:
    with opened(image_layer(folder, "shuffle: true", batch_size=COUNT)) as feed:
        epochs = batches(feed, "label", 6)
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    with opened(image_layer(folder, "shuffle: true", batch_size=COUNT), seed=6) as feed:
        assert batches(feed, "label", 1)[0] != epochs[0]


def test_all_orders_are_about_equally_likely(folder: Path) -> None:
    spec = image_layer(folder, "shuffle: true", batch_size=COUNT)
    with opened(spec) as feed:
        places = np.array(
            [[e.index(n) for n in (0, COUNT - 1)] for e in batches(feed, "label", 99)]
        )
    assert abs(places.mean() - (COUNT - 1) / 2) < 0.8


@pytest.mark.parametrize("settings", ["", "shuffle: true", "shuffle: true rand_skip: 9"])
def test_a_feed_goes_on_exactly_from_a_saved_position(folder: Path, settings: str) -> None:
    spec = image_layer(folder, settings, more="transform_param { crop_size: 3 mirror: true }")
    with opened(spec) as feed:
        batches(feed, "label", 7)
        state = json.loads(json.dumps(feed.state_dict()))
        wanted = [feed.next() for _ in range(6)]
    with opened(spec) as again:
        again.load_state_dict(state)
        assert again.state_dict() == state
        for batch in wanted:
            got = again.next()
            assert all(torch.equal(batch[top], got[top]) for top in batch)
    with opened(spec) as skipping:
        skipping.skip(7)
        assert torch.equal(skipping.next()["data"], wanted[0]["data"])


def test_a_position_in_another_list_is_refused(folder: Path) -> None:
    with opened(image_layer(folder)) as feed:
        state = feed.state_dict()
    (folder / "list.txt").write_text("3.png 3\n")
    with (
        opened(image_layer(folder)) as feed,
        pytest.raises(DataError, match=r"entries 0 to 10; this run reads entries 0 to 1 of .*list"),
    ):
        feed.load_state_dict(state)


def test_rand_skip_starts_somewhere_and_then_reads_all(folder: Path) -> None:
    starts = set()
    for seed in range(40):
        with opened(image_layer(folder, "rand_skip: 5", batch_size=COUNT), seed=seed) as feed:
            first, second = batches(feed, "label", 2)
        assert first == second == [*range(int(first[0]), COUNT), *range(int(first[0]))]
        starts.add(first[0])
    assert starts == set(range(5))


def test_skipping_more_than_there_is_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"Not enough points to skip: rand_skip 1000000 .* 10$"):
        open_feed([image_layer(folder, "rand_skip: 1000000")], seed=5)


@pytest.mark.parametrize("settings", ["", "shuffle: true"])
def test_workers_train_on_their_own_parts_and_test_on_all(folder: Path, settings: str) -> None:
    parts = []
    for rank in range(3):
        spec = image_layer(folder, settings, batch_size=3 if rank < 2 else 4)
        with opened(spec, rank=rank, world_size=3) as feed:
            first, second = batches(feed, "label", 2)
            assert sorted(first) == sorted(second)
            parts.append(sorted(first))
    assert parts == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
    tests = []
    for rank in range(2):
        spec = image_layer(folder, settings, batch_size=COUNT, phase="TEST")
        with opened(spec, rank=rank, world_size=2) as feed:
            tests += batches(feed, "label", 1)
    assert sorted(tests[0]) == list(range(COUNT))
    assert tests[0] == tests[1]
    with pytest.raises(DataError, match=r"each of 11 workers; it holds 10"):
        open_feed([image_layer(folder, settings)], seed=5, world_size=11)


def test_lists_are_read_as_caffe_reads_them(tmp_path: Path) -> None:
    lines = [
        b"a b.png 3\r",
        b"",
        "früh/bild\u00a0ä.png -12".encode(),
        b"x.png\t7 +5x",
        b"two  8",
        b"  ",
        b"lonely",
        b"42",
        b"wide.png 4294967297",
        b"odd\xff.png 1e3",
        b"trailing.png 6 ",
        b"last.png 9",
    ]
    (tmp_path / "list").write_bytes(b"\n".join(lines))
    assert [tuple(listed) for listed in read_image_list(tmp_path / "list")] == [
        ("a b.png", 3, 1),
        ("früh/bild\u00a0ä.png", -12, 3),
        ("x.png\t7", 5, 4),
        ("two ", 8, 5),
        ("lonely", 0, 7),
        ("42", 42, 8),
        ("wide.png", 1, 9),
        (os.fsdecode(b"odd\xff.png"), 1, 10),
        ("trailing.png 6", 0, 11),
        ("last.png", 9, 12),
    ]


def test_names_may_hold_spaces_and_letters_of_any_script(tmp_path: Path) -> None:
    name = "sub dir/früh 画像.png"
    save_picture(tmp_path / name, images(1)[0])
    (tmp_path / "list.txt").write_text(f"{name} 3\r\n\r\n", encoding="utf-8")
    with opened(image_layer(tmp_path)) as feed:
        assert feed.next()["label"].tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("content", [b"", b"\n \r\n"])
def test_an_empty_list_is_refused(folder: Path, content: bytes) -> None:
    (folder / "list.txt").write_bytes(content)
    with pytest.raises(
        DataError, match=r"^net.prototxt:3:1: layer \"in\" .*list.txt: File is empty"
    ):
        open_feed([image_layer(folder)], seed=5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.png", None, "No such file"),
        ("x" * 5000 + ".png", None, "File name too long"),
        ("nul\0.png", None, "cannot be read"),
        ("empty.png", b"", "0 bytes cannot be decoded"),
        ("text.png", b"no image", r"8 bytes cannot be decoded\Z"),
        (".", None, "Is a directory"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_named_with_its_line(
    folder: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (folder / name).write_bytes(content)
    (folder / "list.txt").write_text(f"0.png 0\n1.png 1\n\n{name} 2\n")
    with (
        opened(image_layer(folder, batch_size=2), data_dir=folder / "elsewhere") as feed,
    ):
        assert feed.next()["label"].tolist() == [0, 1]
        with pytest.raises(DataError, match=rf"list.txt:4: Could not load .*{message}"):
            feed.next()


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_a_truncated_image_is_named_with_its_line(folder: Path, suffix: str) -> None:
    file = folder / f"cut.{suffix}"
    save_picture(file, images(1, 3, 40, 60)[0])
    file.write_bytes(file.read_bytes()[:-900])
    (folder / "list.txt").write_text(f"cut.{suffix} 0\n")
    with pytest.raises(DataError, match=rf"list.txt:1: Could not load cut.{suffix}: .*decoded"):
        open_feed([image_layer(folder)], seed=5)


def test_images_of_a_batch_must_have_one_size(folder: Path) -> None:
    save_picture(folder / "large.png", images(1, 3, 8, 11)[0])
    (folder / "list.txt").write_text("0.png 0\nlarge.png 1\n")
    with (
        opened(image_layer(folder, batch_size=2)) as feed,
        pytest.raises(DataError, match=r"list.txt, images of the lines 1, 2: .* in one size"),
    ):
        feed.next()
    with opened(image_layer(folder, batch_size=1)) as feed:
        assert [feed.next()["data"].shape[2] for _ in range(3)] == [5, 8, 5]
    with opened(image_layer(folder, "new_height: 6 new_width: 9", batch_size=2)) as feed:
        assert feed.next()["data"].shape == (2, 3, 6, 9)


@pytest.mark.parametrize(
    ("settings", "others", "message"),
    [
        ("new_height: 3", {}, "new_height and new_width must be set at the same time"),
        ("new_width: 3", {}, "received new_height 0, new_width 3"),
        ("", {"batch_size": 0}, "image_data_param.batch_size must be > 0; received 0"),
        ("", {"tops": "data"}, r"produces 2 top blob\(s\) as output; received 1"),
        ("", {"more": "data_param { prefetch: 0 }"}, "prefetch must be > 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    folder: Path, settings: str, others: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        open_feed([image_layer(folder, settings, **others)], seed=5)


def test_a_layer_without_a_source_is_refused() -> None:
    with pytest.raises(UsageError, match=r"image_data_param.source must name a file or folder"):
        open_feed([layer("ImageData", "image_data_param { batch_size: 3 }")], seed=5)


@pytest.mark.parametrize("home", ["", "train/", "sub/"])
def test_files_kept_elsewhere_are_found(tmp_path: Path, home: str) -> None:
    """The images lie in the folder itself, in the last folder of root_folder, or as listed."""
    data = tmp_path / "elsewhere"
    save_picture(data / home / "a.png", images(1)[0])
    (data / "list.txt").write_text("sub/a.png 3\n" if home != "train/" else "a.png 3\n")
    settings = 'source: "gone/list.txt" root_folder: "gone/train/"'
    spec = layer("ImageData", f"image_data_param {{ {settings} }}")
    with opened(spec, data_dir=data) as feed:
        np.testing.assert_array_equal(feed.next()["data"], images(1))
    with pytest.raises(DataError, match=r"gone/list.txt does not exist"):
        open_feed([spec], seed=5)


def test_root_folder_is_only_put_in_front(folder: Path) -> None:
    (folder / "list.txt").write_text("ng 3\n")
    text = f'source: "{folder}/list.txt" root_folder: "{folder}/0.p"'
    with opened(layer("ImageData", f"image_data_param {{ {text} }}")) as feed:
        np.testing.assert_array_equal(feed.next()["data"], images(COUNT)[:1])


def test_caffes_log_lines_appear(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with opened(image_layer(folder, "shuffle: true rand_skip: 1")):
        assert caplog.messages == [
            "A total of 10 images.",
            "Skipping first 0 data points.",
            "Shuffling data",
            "output data size: 4,3,5,7",
        ]
