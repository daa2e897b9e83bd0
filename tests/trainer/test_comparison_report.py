"""The report of a comparison: what it says; how it looks in a browser, wide, narrow, printed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from comparison_rows import make_failed, make_row, make_study

from trainer.comparison.report import check_packages, render
from trainer.errors import DataError, TrainerError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

COMMAND = "torrefy compare --net cifar10_quick.prototxt --out runs/compare"
HOSTILE = "</script><script>document.title='bad'</script><img src=x onerror=alert(1)>&\"'"
CHARTS = ("trade", "curves", "final", "reach", "steady", "costs", "staleness")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def embedded(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert match is not None
    data: dict[str, Any] = json.loads(match[1])
    return data


def outcome(page: str, label: str) -> dict[str, Any]:
    found: dict[str, Any] = next(o for o in embedded(page)["outcomes"] if o["label"] == label)
    return found


def test_the_report_says_what_to_do_what_was_run_and_what_it_does_not_show() -> None:
    page = render(make_study(), [], COMMAND)
    for expected in (
        "<title>Strategies compared: cifar10_quick.prototxt</title>",
        "Which strategy to use",
        "57 runs of 19 combinations, 1,000 iterations of 100 images",
        "What these figures do and do not show",
        "Made-up 1, 2 cores, 24 GB, Linux 6",
        "torrefy 0.1, python 3.11, torch 2.13, pyspark 4.3, java 17",
        COMMAND,
    ):
        assert expected in page
    assert "Under way" not in page
    assert "Runs that did not finish" not in page


def test_a_comparison_under_way_says_so_and_shows_what_there_is() -> None:
    page = render([make_row()], ["sparknet-2/seed1", "sparknet-2/seed2"], COMMAND)
    assert "Under way: 2 runs still to come." in page
    assert "<li>sparknet-2/seed2</li>" in page
    assert outcome(page, "single")["final"]["mean"] == 0.6


def test_without_a_finished_run_there_are_no_pictures() -> None:
    for rows in ([], [make_failed("sync", 2, 1, "no Java")]):
        page = render(rows, ["single/seed1"], COMMAND)
        assert "Nothing to say yet." in page
        assert "Plotly" not in page
    assert "no Java" in page


def test_runs_of_two_nets_are_refused() -> None:
    with pytest.raises(DataError, match="expected runs of one net"):
        render([make_row(), make_row("sync", 2, net="lenet.prototxt")], [], COMMAND)


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    check_packages()
    monkeypatch.setitem(__import__("sys").modules, "plotly", None)
    with pytest.raises(TrainerError, match=r"pip install 'torrefy\[compare\]'"):
        check_packages()


def test_failed_and_disturbed_runs_are_marked() -> None:
    rows = [make_row(other_load=0.4), make_failed("easgd", 2, 1, "out of memory")]
    page = render(rows, [], COMMAND)
    assert "<td>40 % ⚠</td>" in page
    assert "<td>out of memory</td>" in page
    assert outcome(page, "single")["disturbed"]


def test_texts_of_rows_stay_texts() -> None:
    rows = [
        *(make_row(seed=seed) for seed in (1, 2, 3)),
        make_row("sync", 2, {"x": HOSTILE}, label=HOSTILE, run=HOSTILE),
        make_failed("easgd", 2, 1, HOSTILE),
    ]
    page = render(rows, [HOSTILE], HOSTILE)
    assert HOSTILE not in page
    assert "<img" not in page.split('id="data"')[0]
    assert "<" not in page.split('id="data">')[1].split("</script>")[0]
    assert outcome(page, HOSTILE)["final"]["mean"] == 0.6


def test_what_is_drawn_is_what_was_measured() -> None:
    rows = [
        make_row(values=(0.1, 0.5, 0.6), seconds=60.0),
        make_row("sync", 2, values=(0.1, 0.6, 0.7), seconds=40.0),
        make_row("sync", 4, values=(0.1, 0.2, 0.3), seconds=50.0),
    ]
    page = render(rows, [], COMMAND)
    data = embedded(page)
    assert data["quantities"] == {
        "accuracy": "Test accuracy",
        "loss": "Test loss",
        "train": "Training loss",
    }
    level = data["levels"][data["level"]]
    assert level == {"value": 0.57, "text": "0.570: 95 % of the single run’s"}
    fast, slow = outcome(page, "sync, 2 workers"), outcome(page, "sync, 4 workers")
    assert fast["reach"]["seconds"][data["level"]]["spread"]["mean"] == pytest.approx(18.8)
    assert slow["reach"]["seconds"][data["level"]] == {"runs": 1, "spread": None}
    assert fast["curves"]["accuracy"]["mean"] == [0.1, 0.6, 0.7]
    assert (fast["colour"], fast["dash"]) == (1, 0)
    assert (slow["colour"], slow["dash"]) == (1, 1)
    assert outcome(page, "single")["colour"] == 0
    assert [o["label"] for o in data["outcomes"] if o["unbeaten"]] == ["sync, 2 workers"]
    assert "<td>2.71×</td>" in page  # the single run needs 51 s


def test_of_many_combinations_the_best_of_each_strategy_are_shown_at_first() -> None:
    shown = [
        o["label"] for o in embedded(render(make_study(), [], COMMAND))["outcomes"] if o["shown"]
    ]
    assert [label.split(",")[0] for label in shown] == [
        *("single", "sync", "sparknet", "deepspark", "easgd", "downpour", "diloco")
    ]


def test_a_net_without_accuracy_is_compared_by_its_loss() -> None:
    rows = [make_row(metric="loss", final=1.3), make_row("sync", 2, metric="loss", final=1.1)]
    for row in rows:
        for test in row["tests"]:
            del test["accuracy"]
    page = render(rows, [], COMMAND)
    assert embedded(page)["lowerIsBetter"]
    assert list(embedded(page)["quantities"]) == ["loss", "train"]
    assert "‘sync, 2 workers’ has the best final loss" in page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start a browser that asks nobody for anything by itself."""
    api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"needs a browser: none of {', '.join(names)} is on the PATH")
    with api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=program, args=list(FLAGS))
        yield found
        found.close()


class Visit:
    """A page as somebody sees it, and what went wrong meanwhile."""

    def __init__(self, browser: Browser, path: Path, width: int, scheme: Any = "light") -> None:
        is_phone = width < 600
        self.context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            has_touch=is_phone,
            is_mobile=is_phone,
        )
        self.page: Page = self.context.new_page()
        self.wrongs: list[str] = []
        self.requests: list[str] = []
        self.page.on(
            "console", lambda message: self.wrongs.append(f"{message.type} {message.text}")
        )
        self.page.on("pageerror", lambda error: self.wrongs.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("#chart-final .trace", state="attached")

    def drawn(self, name: str) -> int:
        """Return how many traces a chart has."""
        count: int = self.page.locator(f"#chart-{name} .trace").count()
        return count

    def x_title(self, name: str) -> str:
        """Return what is written under a chart."""
        return self.page.locator(f"#chart-{name} .xtitle").text_content() or ""

    def is_within(self) -> bool:
        """Return whether nothing makes the page wider than the screen."""
        script = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        fits: bool = self.page.evaluate(script)
        return fits


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the report of a study with everything in it."""
    rows = [*make_study(), make_failed("easgd", 8, 1, HOSTILE)]
    rows[5]["other_load"] = 0.4
    rows[3].update(status="diverged", final=None)
    rows[7]["label"] = HOSTILE
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(rows, ["diloco-4/seed4"], COMMAND + " --x" * 60), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_draws_everything_and_asks_nobody(
    browser: Browser, report: Path, width: int, scheme: str, tmp_path: Path
) -> None:
    visit = Visit(browser, report, width, scheme)
    for name in CHARTS:
        assert visit.drawn(name) > 0, name
    assert visit.is_within()
    visit.page.screenshot(path=tmp_path / f"report_{width}_{scheme}.png", full_page=True)
    visit.context.close()
    assert visit.wrongs == []
    assert visit.requests == [report.as_uri()]


def test_names_of_points_do_not_cover_each_other(browser: Browser, tmp_path: Path) -> None:
    close = [
        ("sync", 0.560, 59),
        ("sparknet", 0.563, 60),
        ("downpour", 0.556, 58),
        ("easgd", 0.4, 50),
    ]
    rows = [make_row(values=(0.1, 0.6), seconds=75)]
    rows += [make_row(name, 2, values=(0.1, v), seconds=s) for name, v, s in close]
    path = tmp_path / "report.html"
    path.write_text(render(rows, [], COMMAND), encoding="utf-8")
    visit = Visit(browser, path, 1280)
    found = visit.page.locator("#chart-trade .annotation-text-g")
    boxes = [box for each in found.all() if (box := each.bounding_box()) is not None]
    names = found.all_text_contents()
    visit.context.close()
    assert names == ["single", "sync, 2 workers", "easgd, 2 workers"]
    for box, other in combinations(boxes, 2):
        is_beside = box["x"] + box["width"] <= other["x"] or other["x"] + other["width"] <= box["x"]
        is_above = (
            box["y"] + box["height"] <= other["y"] or other["y"] + other["height"] <= box["y"]
        )
        assert is_beside or is_above


@pytest.mark.parametrize("width", [1280, 390])
def test_axes_levels_and_series_are_chosen_in_the_page(
    browser: Browser, report: Path, width: int
) -> None:
    visit = Visit(browser, report, width)
    page = visit.page
    titles = {
        "seconds": "Seconds since training began",
        "worker_iterations": "Iterations of each worker",
        "iterations": "Iterations of the run",
        "samples": "Samples that all workers have seen",
    }
    for axis, title in titles.items():
        page.check(f'input[name="x"][value="{axis}"]')
        assert visit.x_title("curves") == title
    page.check('input[name="y"][value="train"]')
    assert page.locator("#chart-curves .ytitle").text_content() == "Training loss"
    page.check('input[name="way"][value="samples"]')
    assert visit.x_title("reach") == "Samples to the level"
    before = page.locator("#chart-reach .textpoint").all_text_contents()
    page.select_option("#level", index=0)
    assert page.locator("#chart-reach .textpoint").all_text_contents() != before
    page.check('input[name="steadiness"][value="fall"]')
    assert visit.x_title("steady") == "Largest fall of accuracy"
    page.click('button[data-show="all"]')
    assert visit.drawn("curves") == 3 * 19  # a line and the two edges of its band
    page.uncheck("#legend input >> nth=0")
    assert visit.drawn("curves") == 3 * 18
    page.click('button[data-show="none"]')
    assert visit.drawn("curves") == 0
    page.click('button[data-show="first"]')
    assert visit.drawn("curves") == 3 * 7
    visit.context.close()
    assert visit.wrongs == []


def test_on_paper_it_is_light_complete_and_without_buttons(
    browser: Browser, report: Path, tmp_path: Path
) -> None:
    visit = Visit(browser, report, 1280, "dark")
    page = visit.page
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.emulate_media(media="print")
    page.wait_for_selector("html[data-print]")
    assert page.evaluate(background) == "rgb(255, 255, 255)" != dark
    widths = page.locator(".plot .main-svg").evaluate_all("all => all.map(e => e.clientWidth)")
    assert max(widths) == 680
    assert not page.locator("#legend button").first.is_visible()
    assert page.locator("text=Every run").first.is_visible()
    assert page.locator("details:not([open])").count() == 0
    page.screenshot(path=tmp_path / "report_print.png", full_page=True)
    page.emulate_media(media="screen")
    page.wait_for_selector("html:not([data-print])")
    assert page.evaluate(background) == dark
    assert page.locator("details[open]").count() == 0
    page.pdf(path=tmp_path / "report.pdf")
    visit.context.close()
    assert visit.wrongs == []


@pytest.mark.parametrize("rows", [[make_row()], [make_row("sync", 2)], make_study(1, small=True)])
def test_little_is_drawn_too(browser: Browser, rows: Sequence[Any], tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render(rows, [], COMMAND), encoding="utf-8")
    visit = Visit(browser, path, 390)
    assert visit.drawn("final") > 0
    assert visit.is_within()
    visit.context.close()
    assert visit.wrongs == []


def test_hostile_labels_are_shown_as_they_are(browser: Browser, report: Path) -> None:
    visit = Visit(browser, report, 1280)
    assert visit.page.title() == "Strategies compared: cifar10_quick.prototxt"
    assert visit.page.locator("img").count() == 0
    ticks = visit.page.locator("#chart-final .ytick").all_text_contents()
    assert any(tick.startswith("</script><script>document.title") for tick in ticks)
    visit.context.close()
    assert visit.wrongs == []
