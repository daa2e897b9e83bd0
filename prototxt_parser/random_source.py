"""The random numbers of one net: fillers at construction, Dropout while it runs."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping

import torch


class RandomSource:
    """Generators of one net, one per device, all made from one seed.

    Caffe draws everything from a global Mersenne Twister; here every net has its own source, so
    that several workers can run in one process and a run can be resumed exactly. Distributions
    are Caffe's, the streams are not.

    Args:
        seed: 0 or more for a reproducible stream; None (Caffe: a negative `random_seed`) draws one
            from the operating system.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed if seed is not None and seed >= 0 else secrets.randbits(62)
        self._generators: dict[str, torch.Generator] = {}

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """Return the generator of `device`, made on first use."""
        key = str(device)
        if key not in self._generators:
            self._generators[key] = torch.Generator(device=device).manual_seed(self.seed)
        return self._generators[key]

    def state_dict(self) -> dict[str, str]:
        """Return the state of every generator used so far, as base64 text by device."""
        return {
            device: base64.b64encode(bytes(generator.get_state().tolist())).decode()
            for device, generator in self._generators.items()
        }

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Continue where the source that gave `state` stood."""
        for device, text in state.items():
            raw = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
            self.generator(device).set_state(raw)
