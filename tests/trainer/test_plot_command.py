"""`torrefy plot`: pictures, by what is in them, and what is refused."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from golden_cases import GOLDEN
from prototxt_parser.errors import WriteError
from trainer.cli import main
from trainer.errors import UsageError
from trainer.plotting.curves import Curve, Panel
from trainer.plotting.figure import draw_curves, draw_panels, save

LOGS = GOLDEN / "logs"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make two runs, of one process and of two workers; returns their folders, from here."""
    monkeypatch.chdir(tmp_path)
    for name, workers in (("single", 1), ("shared", 2)):
        Path("runs", name).mkdir(parents=True)
        with Path("runs", name, "net_metrics.jsonl").open("w") as file:
            for step in range(0, 1001, 10):
                for each in records(step, workers):
                    place = {"iteration": step, "samples": 7 * step, "seconds": step / 8}
                    file.write(json.dumps(each | place) + "\n")
    return ["runs/single", "runs/shared"]


def records(step: int, workers: int) -> list[dict[str, object]]:
    loss = 0.5 + math.exp(-step / 200) + 0.2 * (step // 10 % 2)
    found: list[dict[str, object]] = []
    if step % 250 == 0:
        found.append({"kind": "test", "net": 0, "accuracy": 1 - loss / 2, "loss": loss})
    if workers == 1:
        return [*found, {"kind": "train", "loss": loss, "lr": 0.1}]
    common = {"kind": "exchange", "worker_iteration": step // 2, "lr": 0.1, "staleness": 1}
    return [*found, *({**common, "rank": rank, "loss": loss + rank} for rank in range(workers))]


def texts(path: Path) -> list[str]:
    return ["".join(each.itertext()) for each in ElementTree.parse(path).iter(f"{SVG}text")]


def line_groups(path: Path) -> list[int]:
    """Return how many lines each panel of a picture has, grid and ticks not counted."""
    groups = {each.get("id", ""): each for each in ElementTree.parse(path).iter(f"{SVG}g")}
    axes = [group for name, group in groups.items() if name.startswith("axes_")]
    return [
        sum(child.get("id", "").startswith("line2d") for child in group.findall(f"{SVG}g"))
        for group in axes
    ]


def shades(path: Path) -> int:
    groups = ElementTree.parse(path).iter(f"{SVG}g")
    return sum(each.get("id", "").startswith("FillBetween") for each in groups)


def test_curves_of_two_runs_as_svg(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", *runs, "--out", "a.svg", "--title", "a < b & $c$"]) == 0
    assert capsys.readouterr().out == (
        "Drew test accuracy, test loss, train loss of 2 runs to a.svg\n"
    )
    said = texts(Path("a.svg"))
    for text in ("a < b & $c$", "test accuracy", "test loss", "train loss", "iterations"):
        assert said.count(text) == 1
    assert said[-2:] == ["single", "shared"]
    assert "1,000" in said
    # Both are smoothed in training: over what was recorded in the one, and within a shade.
    assert line_groups(Path("a.svg")) == [2, 2, 3]
    assert shades(Path("a.svg")) == 1


def test_by_default_a_png_is_written_here(runs: list[str]) -> None:
    assert main(["plot", "runs/single/net_metrics.jsonl"]) == 0
    with Image.open("curves.png") as image:
        image.load()
        assert image.format == "PNG"
        assert image.width == 1200
        assert image.height > image.width
        colours = image.convert("RGB").getcolors(1 << 24) or []
    assert max(colours)[1] == (255, 255, 255)
    assert (0x00, 0x72, 0xB2) in [colour for _, colour in colours]


def test_the_ending_may_be_in_capitals(runs: list[str]) -> None:
    assert main(["plot", *runs, "--out", "a.PNG"]) == 0
    with Image.open("a.PNG") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize("name", ["a.svg", "a.png"])
def test_what_is_drawn_twice_is_the_same_to_the_byte(runs: list[str], name: str) -> None:
    pictures = []
    for _ in range(2):
        assert main(["plot", *runs, "--out", name]) == 0
        pictures.append(Path(name).read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    ("x_axis", "label"), [("samples", "samples"), ("seconds", "time (s)"), ("iterations",) * 2]
)
def test_names_and_axis_may_be_chosen(
    runs: list[str], x_axis: str, label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--x", x_axis, "--y", "staleness, lr,staleness", "--out", "a.svg"]
    assert main(["plot", *runs, *flags]) == 0
    assert capsys.readouterr().out == "Drew staleness (updates), learning rate of 2 runs to a.svg\n"
    assert label in texts(Path("a.svg"))
    assert line_groups(Path("a.svg")) == [1, 2]


def test_a_run_without_what_is_drawn_is_reported(
    runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", *runs, "--y", "staleness", "--out", "a.svg"]) == 0
    assert capsys.readouterr().out == (
        "Left out single: it has recorded no staleness\n"
        "Drew staleness (updates) of 1 run to a.svg\n"
    )
    assert texts(Path("a.svg"))[-1] == "shared"


def test_logs_of_caffes_are_drawn_beside_runs(runs: list[str]) -> None:
    log = str(LOGS / "train_sgd.log")
    assert main(["plot", *runs, log, "--x", "seconds", "--out", "a.svg"]) == 0
    assert texts(Path("a.svg"))[-1].endswith("train_sgd")
    assert line_groups(Path("a.svg")) == [3, 3, 4]


def test_a_log_with_two_test_nets(runs: list[str]) -> None:
    log = str(LOGS / "train_autoencoder.log")
    assert main(["plot", log, "--y", "l2_error", "--out", "a.svg"]) == 0
    said = texts(Path("a.svg"))
    assert said[-2:] == ["train_autoencoder", "train_autoencoder, test net 1"]
    assert {"test l2_error", "train l2_error"} <= set(said)
    assert line_groups(Path("a.svg")) == [2, 1]


@pytest.mark.parametrize("name", ["_hidden", "$a_$b$", "ctl\x01", "日本", "x" * 200, "<&>"])
def test_any_name_of_a_run_can_be_drawn(runs: list[str], name: str) -> None:
    Path("runs/shared").rename(f"runs/{name}")
    for out in ("a.png", "a.svg"):
        assert main(["plot", "runs/single", f"runs/{name}", "--out", out]) == 0
    label = name.replace("\x01", "\ufffd")
    assert "".join(texts(Path("a.svg"))).endswith(f"single{label}")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["runs/single", "--out", "a.pdf"], 2, "a.pdf: the ending says the format: expected .png "),
        (["runs/single", "--out", "curves"], 2, "received none"),
        (["runs/single", "--y", "top5"], 2, "'top5' is recorded in none of the runs; recorded are"),
        (["runs/single", "--out", "no/a.png"], 1, "no/a.png: cannot write"),
        (["runs"], 1, "runs: expected exactly one file *_metrics.jsonl"),
        (["nowhere"], 1, "nowhere: cannot read the run: No such file"),
        ([str(LOGS / "train_sgd.log"), "--x", "samples"], 2, "draw over iterations or seconds"),
        ([str(LOGS / "time.log")], 1, "found neither"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    runs: list[str], words: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", *words]) == status
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not list(Path().glob("*.p*"))


def test_empty_names_are_refused(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plot", *runs, "--y", "loss,,lr"])
    assert "expected names between commas; received 'loss,,lr'" in capsys.readouterr().err


def test_runs_without_accuracy_and_loss(
    runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("other_metrics.jsonl")
    line = {"kind": "test", "iteration": 1, "samples": 7, "seconds": 1.0, "net": 0}
    path.write_text(json.dumps(line | {"top1": 0.5}) + "\n")
    assert main(["plot", str(path)]) == 2
    assert "name with --y what to draw: top1\n" in capsys.readouterr().err
    assert main(["plot", str(path), "--y", "top1"]) == 0
    path.write_text(json.dumps(line | {"top1": None}) + "\n")
    assert main(["plot", str(path)]) == 2
    assert "nothing is, so far\n" in capsys.readouterr().err


def test_without_matplotlib_one_line_says_what_to_install(
    runs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "trainer.plotting.figure")
    assert main(["plot", *runs]) == 1
    assert capsys.readouterr().err == (
        "error: drawing curves needs the package matplotlib, which is not installed: "
        "pip install 'torrefy[plot]'\n"
    )


def curve(style: int, **more: np.ndarray) -> Curve:
    x = np.array([0.0, 1.0, 2.0])
    return Curve(f"curve {style}", style, x, x**2, **more)


def test_curves_with_their_spread_are_drawn_on_given_axes() -> None:
    axes = Figure().subplots()
    draw_curves(axes, [curve(0, low=np.zeros(3), high=np.full(3, 9.0)), curve(1)])
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0, 1, 4]] * 2
    (shade,) = axes.collections
    (path,) = shade.get_paths()
    assert (path.vertices[:, 1].min(), path.vertices[:, 1].max()) == (0, 9)


def test_styles_differ_in_colour_and_in_line() -> None:
    axes = Figure().subplots()
    draw_curves(axes, [curve(style) for style in range(35)])
    looks = {(line.get_color(), str(line._dash_pattern)) for line in axes.lines}
    assert len(looks) == 35
    assert len({line.get_color() for line in axes.lines[:7]}) == 7
    assert len({str(line._dash_pattern) for line in axes.lines[:5]}) == 5


def test_a_gap_and_a_single_point_are_seen() -> None:
    axes = Figure().subplots()
    gap = Curve("a", 0, np.arange(3.0), np.array([1.0, np.nan, 2.0]))
    draw_curves(axes, [gap, Curve("b", 1, np.ones(1), np.ones(1))])
    assert all(line.get_marker() for line in axes.lines)


def test_panels_share_their_x_axis_and_a_legend() -> None:
    panels = [Panel("x (s)", "a", [curve(0)]), Panel("x (s)", "b", [curve(1), curve(0)], "note")]
    figure = draw_panels(panels)
    first, second = figure.axes
    assert (first.get_xlabel(), second.get_xlabel()) == ("", "x (s)")
    assert second.get_title(loc="right") == "note"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["curve 0", "curve 1"]


def test_saving_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected \.png or \.svg; received \.gif"):
        save(Figure(), tmp_path / "a.gif")
    with pytest.raises(WriteError, match="cannot write"):
        save(Figure(), tmp_path / "no" / "a.svg")
    assert not list(tmp_path.iterdir())
