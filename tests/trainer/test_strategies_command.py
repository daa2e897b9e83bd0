"""`torrefy strategies`, the page about them, and a strategy of the user's own."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from prototxt_parser.text import print_text
from tiny_task import tiny_net, tiny_param, write_data
from trainer.cli import main, train_main
from trainer.strategies import get_strategy, strategy_names

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/strategies.md").read_text(encoding="utf-8")
OWN = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)


def torrefy(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, whose registry it may fill."""
    code = "import sys; from trainer.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *argv],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_all_strategies_are_listed_with_paper_and_flags(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["strategies"]) == 0
    blocks = capsys.readouterr().out.split("\n\n")
    assert [block.split(" (")[0] for block in blocks] == strategy_names()
    for name, block in zip(strategy_names(), blocks, strict=True):
        words = " ".join(block.split())
        assert re.search(r"Source: .*(20\d\d|Caffe|caffe)", words)
        for field in dataclasses.fields(get_strategy(name).options_type):
            assert f"--{field.name.replace('_', '-')}" in words
            assert f"{field.metadata['help']} (default {field.default})" in words
    assert max(map(len, "\n".join(blocks).splitlines())) <= 100


def test_the_page_has_a_section_for_every_strategy_and_every_flag() -> None:
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL))
    assert sorted(set(sections) & set(strategy_names())) == strategy_names()
    for name in strategy_names():
        assert "Source: " in sections[name]
        for field in dataclasses.fields(get_strategy(name).options_type):
            assert f"`--{field.name.replace('_', '-')}" in sections[name], (name, field.name)


@pytest.mark.parametrize("name", strategy_names())
def test_a_flag_of_another_strategy_is_an_error(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {field.name for field in dataclasses.fields(get_strategy(name).options_type)}
    flags = {"max_staleness": "9", "outer_lr": "0.5", "n_push": "2", "post_local": "3"}
    flags |= {"sync_interval": "5", "moving_rate": "0.1"}
    for key, value in flags.items():
        flag = f"--{key.replace('_', '-')}"
        argv = ["--net", "lenet.prototxt", "--workers", "2", "--dry-run", "--strategy", name]
        status = train_main([*argv, flag, value])
        error = capsys.readouterr().err
        assert status == (0 if key in own else 2)
        assert (f"{flag}: not a flag of strategy {name}" in error) == (key not in own)


def test_help_gives_every_strategys_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_main(["--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "(default: deepspark 10, diloco 100, easgd 10, sparknet 10)" in words


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the tiny task as files, and the strategy of the page."""
    write_data(tmp_path)
    (tmp_path / "tiny.prototxt").write_text(print_text(tiny_net().param))
    param = tiny_param(Path("out"), net="tiny.prototxt")
    (tmp_path / "tiny_solver.prototxt").write_text(print_text(param))
    assert OWN is not None
    (tmp_path / "partial.py").write_text(OWN[1])
    return tmp_path


RUN = ["train", "--solver", "tiny_solver.prototxt", "--out", "out", "--seed", "5", "--workers", "2"]
MODULE = ["--layer-module", "partial.py"]


def test_the_example_of_the_page_runs(folder: Path) -> None:
    flags = ["--strategy", "partial", "--part", "0.3", "--master", "in-process"]
    result = torrefy(*RUN, *MODULE, *flags, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "partial (sync_interval 10, part 0.3), 2 workers" in result.stdout
    assert (folder / "out/tiny_iter_40.caffemodel").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([*MODULE, "--strategy", "partial", "--part", "7"], "part: expected 0 to 1; received 7.0"),
        ([*MODULE, "--strategy", "sync", "--part", "0.3"], "--part: not a flag of strategy sync"),
        (["--layer-module", "none.py", "--strategy", "sync"], "none.py: cannot be imported"),
    ],
)
def test_what_is_wrong_with_ones_own_is_one_message(
    folder: Path, flags: list[str], message: str
) -> None:
    result = torrefy(*RUN, *flags, cwd=folder)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert message in result.stderr


def test_ones_own_is_listed(folder: Path) -> None:
    result = torrefy("strategies", *MODULE, cwd=folder)
    assert "partial (synchronous)\n    Every τ iterations x_k ←" in result.stdout
    assert "--part FLOAT" in result.stdout


def test_a_value_that_is_no_number_is_the_parsers_own_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for argv in (["--layer-module"], ["--n-push", "x"]):
        with pytest.raises(SystemExit) as ended:
            train_main(argv)
        assert ended.value.code == 2
        assert f"argument {argv[0]}: " in capsys.readouterr().err
