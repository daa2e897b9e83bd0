"""A case of tests/golden/solvers or tests/golden/resume."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

Blobs = Sequence[np.ndarray]

# In this case one value before a ReLU is exactly 1.7e-8. The recorded rounding made it <= 0, exact
# arithmetic does not. Moved by less than the rounding noise, the bias brings both to one side.
NUDGES = {"policy_sigmoid_sgd": ("init/feat/1", 1, -6e-8)}


class SolverCase:
    """What to feed, what to expect, how closely."""

    def __init__(self, folder: Path) -> None:
        self.info = json.loads((folder / "case.json").read_text())
        self.arrays = dict(np.load(folder / "case.npz"))
        if folder.name in NUDGES:
            key, index, amount = NUDGES[folder.name]
            self.arrays[key][index] += np.float32(amount)

    def batch(self, number: int) -> dict[str, np.ndarray]:
        """Return what goes into the input blobs at forward pass `number`."""
        return {blob: self.arrays[key][number] for blob, key in self.info["feeds"].items()}

    def initial(self) -> dict[tuple[str, int], np.ndarray]:
        """Return the initial parameters; statistics start at 0."""
        found = {}
        for layer, index in self.info["params"]:
            if (value := self.arrays.get(f"init/{layer}/{index}")) is not None:
                found[layer, index] = value
        return found

    def check_rates(self, rates: Sequence[float]) -> None:
        """Compare learning rates; those that the recording took from the log have six digits."""
        digits = 1e-5 if "log" in self.info["lr_source"] else 0
        rtol = max(self.info["tolerance"]["lr_rel"], digits)
        np.testing.assert_allclose(rates, self.arrays["lr"], rtol=rtol)

    def check_losses(self, losses: Sequence[float], key: str = "loss") -> None:
        """Compare losses."""
        rtol = self.info["tolerance"]["loss_rel"]
        np.testing.assert_allclose(losses, self.arrays[key], rtol=rtol)

    def check(self, got: np.ndarray, key: str) -> None:
        """Compare one blob."""
        tolerance = self.info["tolerance"]
        np.testing.assert_allclose(
            got,
            self.arrays[key],
            rtol=tolerance["param_rel"],
            atol=tolerance["param_abs"],
            err_msg=key,
        )

    def check_all(self, kind: str, got: Mapping[int, Blobs]) -> None:
        """Compare all recorded blobs of a kind; `got` holds the learnable ones by iteration."""
        places = {(layer, index): i for i, (layer, index) in enumerate(self.info["params"])}
        keys = [key for key in self.arrays if key.startswith(f"{kind}/")]
        assert keys, kind
        for key in keys:
            _, iteration, rest = key.split("/", 2)
            layer, index = rest.rsplit("/", 1)
            self.check(got[int(iteration)][places[layer, int(index)]], key)

    def check_history(self, got: Blobs, kind: str = "history") -> None:
        """Compare the solver's history, slot by slot."""
        assert len(got) == self.info["history_slots"]
        for index, blob in enumerate(got):
            self.check(blob, f"{kind}/{index}")

    def check_final(self, got: Blobs) -> None:
        """Compare the parameters at the end."""
        for (layer, index), blob in zip(self.info["params"], got, strict=True):
            self.check(blob, f"after/{self.info['iterations']}/{layer}/{index}")
