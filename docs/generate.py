"""Write the pages of this folder that follow from the code.

python -m docs.generate
"""

from __future__ import annotations

from pathlib import Path

from docs.layer_page import layer_page
from docs.solver_page import solver_page

FOLDER = Path(__file__).parent


def pages() -> dict[str, str]:
    """Return the text of every generated page, by file name."""
    return {"layers.md": layer_page(), "solvers.md": solver_page()}


def main() -> None:
    """Write them."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
