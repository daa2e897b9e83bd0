"""A case of tests/golden/layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch


class LayerCase:
    """A recorded case: what to write, what to expect, how closely."""

    def __init__(self, folder: Path) -> None:
        self.info = json.loads((folder / "case.json").read_text())
        self.arrays = dict(np.load(folder / "case.npz"))
        self.prefix = ""

    def select(self, step: int) -> None:
        self.prefix = f"step{step}/" if self.info["steps"] > 1 else ""

    def phase(self, step: int) -> str:
        phase = self.info["phase"]
        return phase if isinstance(phase, str) else phase[step]

    def group(self, kind: str) -> dict[str, np.ndarray]:
        """Arrays of a kind in this step: everything after `kind/` is the key."""
        start = f"{self.prefix}{kind}/"
        return {k[len(start) :]: v for k, v in self.arrays.items() if k.startswith(start)}

    def check(self, kind: str, name: str, got: Any) -> None:
        prefix = "" if kind == "h5" else self.prefix
        key = f"{prefix}{kind}/{name}" if kind else f"{prefix}{name}"
        want = self.arrays[key]
        value = np.asarray(got.detach() if isinstance(got, torch.Tensor) else got)
        assert value.shape == want.shape, key
        ignored = self.arrays.get(f"ignore/{key}", np.zeros(want.shape, dtype=bool))
        value, want = value[~ignored], want[~ignored]
        overrides = self.info["tolerance_overrides"]
        tolerance = overrides.get(key, overrides.get(f"{kind}/{name}", self.info["tolerance"]))
        if key in self.info["exact"] or f"{kind}/{name}" in self.info["exact"]:
            np.testing.assert_array_equal(value, want, err_msg=key)
        else:
            np.testing.assert_allclose(
                value, want, rtol=tolerance["rtol"], atol=tolerance["atol"], err_msg=key
            )
