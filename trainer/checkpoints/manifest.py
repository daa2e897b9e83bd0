"""What a checkpoint says of itself, in its `manifest.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trainer.checkpoints.sealed import seal, unseal
from trainer.errors import DataError

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class FileEntry:
    """A file of a checkpoint.

    Attributes:
        file: Its name in the folder; a repeated writing of a name has another.
        size: In bytes.
        sha256: Of its content, in hexadecimal.
    """

    file: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds.

    Attributes:
        run: Identity of the run that wrote it.
        serial: Number in the order in which checkpoints were completed, from 1.
        iteration: Of the run.
        written: When it was completed, in ISO 8601.
        metric: How good the model is, higher is better; None if that is not known.
        values: JSON values.
        files: By name.
    """

    run: str
    serial: int
    iteration: int
    written: str
    metric: float | None
    values: Mapping[str, Any]
    files: Mapping[str, FileEntry]

    def to_bytes(self) -> bytes:
        """Return the file."""
        return seal({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_bytes(cls, raw: bytes, where: str) -> Manifest:
        """Read the file.

        Raises:
            DataError: It is damaged, or of a later format.
        """
        content = unseal(raw, where)
        found = content.pop("format", None)
        if found != FORMAT:
            raise DataError(
                f"{where}: expected format {FORMAT}; received {found}: read it with the version"
                " of torrefy that wrote it"
            )
        try:
            files = {name: FileEntry(**entry) for name, entry in content.pop("files").items()}
            return cls(**content, files=files)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{where}: expected the fields of a manifest; {error!r}") from error

    @property
    def rank_by_metric(self) -> tuple[float, int]:
        """What orders manifests from the worst to the best; of equals the newer is better."""
        return (-math.inf if self.metric is None else self.metric, self.serial)
