"""Who the workers of a run are: where they run, when they were heard of, why they ended."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import final

from trainer.errors import TrainerError
from trainer.links import Place

logger = logging.getLogger(__name__)

_UNKNOWN = Place("a host not known yet", -1)


@dataclass(frozen=True)
class Failure:
    """Why a worker ended.

    Attributes:
        rank: Which worker.
        host: Where it ran.
        message: Its own message.
        is_lost_peer: It ended only because another one did.
    """

    rank: int
    host: str
    message: str
    is_lost_peer: bool

    def __str__(self) -> str:
        return f"worker {self.rank} on {self.host}: {self.message}"


@dataclass
class Member:
    """What is known of a worker.

    Attributes:
        place: Where it runs.
        heard: When it was heard of last, by the monotonic clock.
        attempts: How often it has started.
        started_at: Iterations that it had behind it when it started last.
        losses: How often it was lost in a row without having got further.
        is_named: Its silence has been logged.
        killed: When its process was killed because of that; None if it was not.
        is_working: It has neither finished nor been dropped.
        is_dropped: The others do what it left.
        extra: Iterations on top of its share.
    """

    heard: float
    place: Place = _UNKNOWN
    attempts: int = 0
    started_at: int = -1
    losses: int = 0
    is_named: bool = False
    killed: float | None = None
    is_working: bool = True
    is_dropped: bool = False
    extra: int = 0

    @property
    def is_awaited(self) -> bool:
        """Whether a process for it is still to report."""
        return not self.attempts or self.killed is not None


@final
class Roster:
    """Keeps the books of workers; many threads may call.

    Args:
        workers: K.
        attempts: How often in a row a worker may be lost without having got further.

    Attributes:
        members: By rank.
    """

    def __init__(self, workers: int, attempts: int) -> None:
        now = time.monotonic()
        self.members = [Member(now) for _ in range(workers)]
        self._attempts = attempts
        self._failures: list[Failure] = []
        self._given_up: str | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Count silence from now."""
        with self._lock:
            for member in self.members:
                member.heard = time.monotonic()

    def register(self, rank: int, place: Place, iteration: int) -> None:
        """Note that a worker starts, again perhaps.

        Args:
            rank: Which.
            place: Where.
            iteration: Iterations that it has behind it.

        Raises:
            TrainerError: It is lost too often.
        """
        with self._lock:
            member = self.members[rank]
            known = [failure for failure in self._failures if failure.rank == rank]
            self._failures = [failure for failure in self._failures if failure.rank != rank]
            if member.attempts:
                self._count_loss(rank, iteration, str(known[0]) if known else None)
            member.place, member.heard = place, time.monotonic()
            member.attempts, member.started_at = member.attempts + 1, iteration
            member.is_named, member.killed = False, None
            if member.attempts > 1:
                reason = known[0].message if known else "killed, or out of memory?"
                logger.warning(
                    "Worker %d was lost (%s); attempt %d goes on from its iteration %d on %s",
                    *(rank, reason, member.attempts, iteration, place.host),
                )

    def _count_loss(self, rank: int, iteration: int, words: str | None) -> None:
        member = self.members[rank]
        member.losses = 1 if iteration > member.started_at else member.losses + 1
        if member.losses < self._attempts:
            return
        self._given_up = words or (
            f"{self.name(rank)} was lost {member.losses} times in a row before it got beyond its "
            f"iteration {iteration}: killed, or out of memory? See Spark's log of the executors"
        )
        raise TrainerError(self._given_up)

    def hear(self, rank: int) -> None:
        """Note a sign of life."""
        with self._lock:
            member, now = self.members[rank], time.monotonic()
            if member.is_named:
                logger.warning("%s is back after %.0f s", self.name(rank), now - member.heard)
            member.heard, member.is_named = now, False

    def finish(self, rank: int) -> None:
        """Note that a worker has done its work."""
        with self._lock:
            self.members[rank].is_working = False

    def drop(self, rank: int, rest: int) -> int:
        """Share out what a worker leaves undone among those that work.

        Args:
            rank: Which one leaves.
            rest: Iterations of it.

        Returns:
            How many workers take part in them.
        """
        with self._lock:
            dropped = self.members[rank]
            dropped.is_dropped, dropped.is_working, dropped.extra = True, False, -rest
            heirs = [member for member in self.members if member.is_working]
            for number, heir in enumerate(heirs):
                heir.extra += rest // len(heirs) + (number < rest % len(heirs))
            return len(heirs)

    def fail(self, rank: int, message: str, *, is_lost_peer: bool) -> None:
        """Note why a worker ends."""
        with self._lock:
            host = self.members[rank].place.host
            self._failures.append(Failure(rank, host, message, is_lost_peer))

    def name(self, rank: int) -> str:
        """Return a worker's name for a message: its rank and host."""
        return f"worker {rank} on {self.members[rank].place.host}"

    def silent(self, seconds: float, start_s: float) -> list[int]:
        """Return the workers that have not finished and were not heard of for `seconds`.

        Those that Spark may still be starting, for the first time or again, have `start_s` more.
        """
        now = time.monotonic()
        with self._lock:
            return [
                rank
                for rank, member in enumerate(self.members)
                if member.is_working
                and now - member.heard > seconds + (start_s if member.is_awaited else 0.0)
            ]

    @property
    def is_over_without_some(self) -> bool:
        """Whether all have finished but those that were dropped."""
        with self._lock:
            is_any_dropped = any(member.is_dropped for member in self.members)
            return is_any_dropped and not any(member.is_working for member in self.members)

    @property
    def given_up(self) -> str | None:
        """Why the run cannot go on; None if it can."""
        return self._given_up

    def own_words(self) -> str | None:
        """Return what the first worker said that ended for a reason of its own, if any did."""
        with self._lock:
            return next((str(each) for each in self._failures if not each.is_lost_peer), None)

    def loss(self) -> str | None:
        """Return who was lost, if others have noticed it: those that did not say a word."""
        with self._lock:
            if not self._failures:
                return None
            told = {failure.rank for failure in self._failures}
            members = enumerate(self.members)
            lost = [self.name(r) for r, m in members if m.is_working and r not in told]
        if not lost:
            return str(self._failures[0])
        return f"{', '.join(lost)} was lost: killed, or out of memory? The others noticed it"
