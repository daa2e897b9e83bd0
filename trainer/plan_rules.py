"""Which ways of exchanging go together with which strategy."""

from __future__ import annotations

from trainer.errors import UsageError
from trainer.plan import IN_PROCESS, DistributedPlan
from trainer.strategies import get_strategy


def check_features(plan: DistributedPlan) -> None:
    """Refuse what a plan asks of its strategy and the strategy cannot do.

    Raises:
        UsageError: It does; says which option, and for which strategies it is.
    """
    strategy = get_strategy(plan.strategy)(plan.options)
    center = strategy.center
    name = plan.strategy
    asked = {
        "overlap": plan.overlap,
        "exchange_dtype": plan.exchange_dtype != "float32",
        "servers": plan.servers > 0,
    }
    for option in (option for option, is_asked in asked.items() if is_asked):
        if strategy.is_synchronous:
            raise UsageError(
                f"{option}: a setting of the exchange with a centre; workers of strategy {name} "
                "exchange together, in float32, with nothing going on meanwhile"
            )
        if center.is_shared:
            raise UsageError(
                f"{option}: a setting of the exchange with a server; workers of strategy {name} "
                "share the memory of the centre"
            )
    if plan.servers and plan.master == IN_PROCESS:
        raise UsageError(
            f"servers: processes beside the driver's; the master {IN_PROCESS} starts none: leave "
            "it out"
        )
    if plan.overlap and center.max_staleness is not None:
        raise UsageError(
            f"overlap: it makes updates staler than strategy {name} allows: leave it out"
        )
