"""What the driver knows of its workers: who is silent, and who failed of his own accord."""

from trainer.links import Place
from trainer.parameter_server.roster import Roster


def roster() -> Roster:
    roster = Roster(2, 4)
    for rank in range(2):
        roster.register(rank, Place(f"host{rank}", 4711 + rank), 0)
    return roster


def test_silent_workers_are_known_until_they_finish() -> None:
    known = roster()
    known.finish(0)
    assert known.silent(-1, 0) == [1]
    assert known.silent(1000, 0) == []
    assert known.name(1) == "worker 1 on host1"


def test_worker_that_never_came_has_longer() -> None:
    known = Roster(2, 4)
    known.register(0, Place("host0", 4711), 0)
    assert known.silent(-1, 1000) == [0]


def test_failure_is_that_of_the_worker_and_not_of_its_peers() -> None:
    known = roster()
    assert known.own_words() is None
    assert known.loss() is None
    known.fail(0, "peer gone", is_lost_peer=True)
    assert known.own_words() is None
    assert "worker 1 on host1 was lost" in str(known.loss())
    known.fail(1, "my disk broke", is_lost_peer=False)
    assert known.own_words() == "worker 1 on host1: my disk broke"
