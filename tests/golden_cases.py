"""The cases recorded from real Caffe, as pytest parameters.

    @pytest.mark.parametrize("case", golden_cases("layers"))
    def test_layer(case: Path) -> None: ...

    @pytest.mark.golden("curves/lenet_200")
    def test_curve() -> None: ...

Both ways carry the `golden` mark, from which the run's summary counts the cases per folder.
"""

from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parent / "golden"


def case_names(folder: str = "") -> list[str]:
    """Return the cases at or below a folder of tests/golden, by their path relative to it."""
    return sorted(
        found.parent.relative_to(GOLDEN).as_posix()
        for found in (GOLDEN / folder).rglob("case.json")
    )


def golden_cases(*folders: str) -> list[pytest.ParameterSet]:
    """Return one parameter, a case's folder, for each case in these folders of tests/golden.

    Raises:
        ValueError: a folder holds no case.
    """
    names = {folder: case_names(folder) for folder in folders}
    if empty := [folder for folder in folders if not names[folder]]:
        raise ValueError(f"{GOLDEN}: no case.json in or below {', '.join(empty)}")
    return [
        pytest.param(GOLDEN / name, id=name, marks=pytest.mark.golden(name))
        for folder in folders
        for name in names[folder]
    ]
