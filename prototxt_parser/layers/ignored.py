"""Which settings have no effect, and why."""

from __future__ import annotations

ENGINE = "chooses among implementations of the same arithmetic"
OLD_TRANSFORM = "Caffe moves it to transform_param in V1 files, and reads it there only"


def ignored(message: str, **reasons: str) -> dict[str, str]:
    """Return the reason for each of these fields of `message`, as `Layer.ignored_fields` has it."""
    return {f"{message}.{field}": reason for field, reason in reasons.items()}
