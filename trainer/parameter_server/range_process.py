"""The process that serves a range of the centre; the driver starts it, see `range_servers`.

It reads its job from the standard input, says on the standard output that it serves, or why not,
and ends with the driver, whatever becomes of that.
"""

from __future__ import annotations

import os
import sys

from trainer.end_with_parent import end_with_parent


def main() -> None:
    """Serve until the driver closes the standard input, or ends."""
    end_with_parent(int(sys.argv[1]))
    # Takes seconds, in which the driver may end.
    from trainer.parameter_server.range_job import RangeJob, serving_range

    with serving_range(RangeJob.from_json(sys.stdin.readline())) as report:
        sys.stdout.write(f"{report}\n")
        sys.stdout.flush()
        sys.stdin.read()
        os._exit(0)  # calls under way have lost their driver


if __name__ == "__main__":
    main()
