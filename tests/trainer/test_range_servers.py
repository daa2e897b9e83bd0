"""A centre in ranges, each served by a real process: what it is, and what killing does to it."""

import dataclasses
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
import torch
from pyarrow import flight
from torch import Tensor

from chaos import own_servers
from trainer.errors import TrainerError
from trainer.links import Control, Move, Place, Pull, Record, Start, Traffic
from trainer.parameter_server.books import Push
from trainer.parameter_server.center import Center
from trainer.parameter_server.center_file import CenterFile, center_file
from trainer.parameter_server.range_servers import range_servers
from trainer.parameter_server.range_service import RangeClient
from trainer.parameter_server.ranged_link import RangedLink, Ranges
from trainer.strategies import CenterSettings
from trainer.strategies.arithmetic import Layout

HOST = "127.0.0.1"
HERE = Place("here", 1)
ROOT = Path(__file__).resolve().parents[2]
# Statistics lie across the borders of two ranges, and of three.
SIZE = 1003
LAYOUT = Layout((slice(0, 300), slice(710, SIZE)), (slice(300, 710),))
WITH_SQUARES = CenterSettings(keeps_squares=True)
ELASTIC = Move("elastic", 0.3)


class OwnLink:
    """A `DriverLink` that leads straight to a centre."""

    traffic = Traffic()

    def __init__(self, center: Center, rank: int) -> None:
        self._center, self._rank = center, rank
        self._attempt = self._sequence = 0

    def start(self, place: Place) -> Start:
        del place
        self._attempt, iteration = self._center.register(self._rank)
        self._sequence = 0
        return Start(self._attempt, iteration, self._center.copy())

    def exchange(
        self, sent: Tensor, move: Move, iteration: int, *, is_answered: bool = True
    ) -> Pull:
        self._sequence += 1
        push = Push(self._rank, self._attempt, self._sequence, iteration, move, is_answered)
        return self._center.exchange(push, sent)

    def fetch(self) -> Tensor:
        return self._center.fetch(self._rank, self._attempt)

    def shared(self) -> Tensor:
        raise NotImplementedError

    def report(self, records: Sequence[Record]) -> Control:
        raise NotImplementedError

    def publish(self, iteration: int, parameters: Tensor, history: Sequence[Tensor]) -> None:
        raise NotImplementedError

    def deposit(self, iteration: int, values: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
        raise NotImplementedError

    def meet(self, tensor: Tensor) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        raise NotImplementedError

    def fail(self, message: str, details: str, *, is_lost_peer: bool) -> None:
        raise NotImplementedError


@dataclasses.dataclass
class Served:
    """A centre in ranges, and the links of its workers."""

    center: Center
    file: CenterFile
    ranges: Ranges
    links: list[RangedLink]


@contextmanager
def served(
    servers: int,
    settings: CenterSettings = WITH_SQUARES,
    *,
    size: int = SIZE,
    layout: Layout = LAYOUT,
    workers: int = 2,
    encrypted: bool = False,
    port: int = 0,
    wait_s: float = 60.0,
    answer_s: float = 20.0,
) -> Iterator[Served]:
    with center_file(size, layout, settings, workers, servers) as file:
        assert file is not None
        center = Center(start(size), layout, [0] * workers, settings, file=file, wait_s=wait_s)
        with (
            range_servers(
                file,
                HOST,
                port,
                encrypted=encrypted,
                start_s=120,
                wait_s=wait_s,
                answer_s=answer_s,
            ) as ranges,
            linked(center, file, ranges) as run,
        ):
            yield run


@contextmanager
def linked(center: Center, file: CenterFile, ranges: Ranges | None) -> Iterator[Served]:
    """Connect the workers, and start them."""
    assert ranges is not None
    with ExitStack() as stack:
        links = [
            stack.enter_context(closing(RangedLink(OwnLink(center, rank), ranges, rank, 60)))
            for rank in range(file.workers)
        ]
        for link in links:
            link.start(HERE)
        yield Served(center, file, ranges, links)


@pytest.fixture(scope="module")
def two_servers() -> Iterator[Served]:
    with served(2) as run:
        yield run


@pytest.fixture
def two(two_servers: Served) -> Iterator[Served]:
    """Two ranges, as at the start of a run; their processes may have served other tests."""
    file = two_servers.file
    center = Center(start(SIZE), LAYOUT, [0, 0], WITH_SQUARES, file=file, wait_s=60)
    with linked(center, file, two_servers.ranges) as run:
        yield run


def start(size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(7))


def processes() -> dict[int, psutil.Process]:
    """Return the processes that serve ranges, by their ports."""
    found = {}
    for child in own_servers():
        with suppress(psutil.Error):  # it has just ended
            for connection in child.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found[connection.laddr.port] = child
    return found


def process_of(run: Served, number: int) -> psutil.Process:
    """Return the process that serves a range, now or in a while."""
    deadline = time.monotonic() + 120
    while (port := run.ranges.addresses[number].port) not in (found := processes()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found[port]


# What the centre is.


@pytest.mark.parametrize(("servers", "encrypted"), [(1, False), (2, True), (3, False)])
def test_exchanges_give_what_one_centre_gives_bit_for_bit(servers: int, encrypted: bool) -> None:
    workers = 3
    oracle = Center(start(SIZE), LAYOUT, [0] * workers, WITH_SQUARES)
    with served(servers, workers=workers, encrypted=encrypted) as run:
        own = [OwnLink(oracle, rank) for rank in range(workers)]
        for link in own:
            link.start(HERE)
        draw = random.Random(5)
        moves = [ELASTIC, Move("subtract", 0.7), Move("adagrad", 0.05)]
        for number in range(24):
            rank, move, is_answered = draw.randrange(workers), moves[number % 3], number % 4 > 0
            sent = torch.randn(SIZE)
            expected = own[rank].exchange(sent, move, number, is_answered=is_answered)
            received = run.links[rank].exchange(sent, move, number, is_answered=is_answered)
            assert torch.equal(received.center, expected.center)
            assert received.staleness == expected.staleness
            if number % 5 == 0:
                assert torch.equal(run.links[rank].fetch(), own[rank].fetch())
        assert torch.equal(run.center.copy(), oracle.copy())
        assert torch.equal(run.center.state()[0], oracle.state()[0])
        assert run.center.iterations == oracle.iterations


def test_a_run_goes_on_from_the_state_of_its_centre() -> None:
    with center_file(SIZE, LAYOUT, WITH_SQUARES, 2, 2) as file:
        squares = torch.rand(SIZE)
        center = Center(start(SIZE), LAYOUT, [4, 5], WITH_SQUARES, file=file, state=[squares])
        assert torch.equal(center.copy(), start(SIZE))
        assert torch.equal(center.state()[0], squares)
        assert center.iterations == [4, 5]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_values_are_widened_where_they_arrive(two: Served, dtype: torch.dtype) -> None:
    sent, own = torch.randn(SIZE).to(dtype), two.links[0]
    pull = own.exchange(sent, Move("subtract"), 1)
    expected = start(SIZE)
    expected[:300] -= sent[:300].float()
    expected[710:] -= sent[710:].float()
    expected[300:710].lerp_(sent[300:710].float(), 0.5)
    assert torch.equal(two.center.copy(), expected)
    assert torch.equal(pull.center, expected.to(dtype).float())
    assert own.traffic == Traffic(2 * SIZE, 2 * SIZE)


def test_the_driver_only_counts(two: Served) -> None:
    link = OwnLink(two.center, 0)
    link.start(HERE)
    with pytest.raises(TrainerError, match="expected a move of count; received 'elastic'"):
        link.exchange(torch.ones(SIZE), ELASTIC, 1)
    assert torch.equal(two.center.copy(), start(SIZE))
    with pytest.raises(TrainerError, match="served by processes of its own"):
        two.links[0].shared()


def test_a_bound_on_staleness_holds_before_anything_is_moved() -> None:
    settings = CenterSettings(max_staleness=1)
    with served(2, settings, wait_s=0.2) as run:
        link, step = run.links[0], Move("subtract")
        link.exchange(torch.ones(SIZE), step, 1)
        before = run.center.copy()
        with pytest.raises(TrainerError, match=r"worker 0 has waited 0\.2 s for worker 1"):
            link.exchange(torch.ones(SIZE), step, 2)
        assert torch.equal(run.center.copy(), before)


def test_many_at_once_without_a_lock_leave_numbers() -> None:
    settings = CenterSettings(is_locked=False)
    with served(2, settings, workers=3, size=200_000, layout=Layout((slice(0, 200_000),), ())) as r:

        def work(rank: int) -> None:
            for iteration in range(1, 21):
                pull = r.links[rank].exchange(
                    torch.full((200_000,), rank + 1.0), ELASTIC, iteration
                )
                assert pull.center.isfinite().all()

        in_threads(work, 3)
        values = r.center.copy()
        assert r.center.worker_iterations == 60
        assert values.min() > 0.9
        assert values.max() < 3.1


def in_threads(work: Callable[[int], None], count: int) -> None:
    """Run `work` in threads, and raise what one of them raises."""
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            work(rank)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


# What becomes of it.


def test_a_killed_server_loses_nothing_and_is_replaced_on_its_port(
    two: Served, caplog: pytest.LogCaptureFixture
) -> None:
    oracle = OwnLink(Center(start(SIZE), LAYOUT, [0, 0], WITH_SQUARES), 0)
    oracle.start(HERE)
    for iteration in (1, 2):
        sent = torch.randn(SIZE)
        expected = oracle.exchange(sent, Move("adagrad", 0.1), iteration).center
        assert torch.equal(
            two.links[0].exchange(sent, Move("adagrad", 0.1), iteration).center, expected
        )
        victim = process_of(two, 1)
        victim.kill()
        victim.wait(20)
    assert torch.equal(two.links[1].fetch(), expected)
    assert process_of(two, 1).pid != victim.pid
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(told) == 2
    assert f"The server of range 1 of the centre, process {victim.pid}, " in told[1]
    assert "another one takes over" in told[1]


def test_a_push_that_comes_again_to_the_next_server_counts_once(two: Served) -> None:
    push = Push(0, 1, 1, 5, Move("subtract"))
    part = two.file.ranges[0]
    for _ in range(2):
        with closing(RangeClient(two.ranges.addresses[0], 0, 60, 60)) as client:
            after = client.exchange(push, torch.ones(SIZE)[part])
        assert torch.equal(after[:300], start(SIZE)[:300] - 1)
        process_of(two, 0).kill()


def test_a_new_attempt_counts_anew_and_the_old_one_is_refused(two: Served) -> None:
    old, step = two.links[0], Move("subtract")
    old.exchange(torch.ones(SIZE), step, 1)
    old.exchange(torch.ones(SIZE), step, 2)
    with closing(RangedLink(OwnLink(two.center, 0), two.ranges, 0, 60)) as new:
        assert new.start(HERE).attempt == 2
        with pytest.raises(TrainerError, match="attempt 1: refused, attempt 2 is the current"):
            old.exchange(torch.ones(SIZE), step, 3)
        before = two.center.copy()
        new.exchange(torch.ones(SIZE), step, 3)
        assert torch.equal(two.center.copy()[:300], before[:300] - 1)


@pytest.mark.parametrize("is_locked", [True, False])
@pytest.mark.slow
def test_servers_killed_in_the_middle_of_exchanges_apply_none_twice(is_locked: bool) -> None:
    """Every push takes 1 off every value. One that a kill interrupts may be lost in part."""
    size, workers, rounds, kills = 1_000_000, 2, 60, 4
    settings = CenterSettings(is_locked=is_locked)
    with served(2, settings, size=size, layout=Layout((slice(0, size),), ())) as run:
        begin, is_over = run.center.copy(), threading.Event()

        def work(rank: int) -> None:
            for iteration in range(1, rounds + 1):
                run.links[rank].exchange(torch.ones(size), Move("subtract"), iteration)

        def kill() -> None:
            draw = random.Random(3)
            for _ in range(kills):
                time.sleep(draw.uniform(0.02, 0.3))
                while not (living := list(processes().values())):
                    time.sleep(0.05)
                draw.choice(living).kill()
            is_over.set()

        killer = threading.Thread(target=kill)
        killer.start()
        in_threads(work, workers)
        killer.join()
        steps = (begin - run.center.copy()).round()
        pushes = workers * rounds
        assert run.center.worker_iterations == pushes
        assert steps.max() <= pushes
        if is_locked:
            assert steps.min() >= pushes - kills
        # The run goes on as if nothing had been.
        before = run.center.copy()
        run.links[0].exchange(torch.ones(size), Move("subtract"), rounds + 1)
        assert torch.equal(run.center.copy(), before - 1)


def test_a_stopped_server_is_named_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    with served(2, answer_s=1.0) as run:
        victim = process_of(run, 0)
        victim.send_signal(signal.SIGSTOP)
        run.links[0].exchange(torch.ones(SIZE), Move("subtract"), 1)
        assert torch.equal(run.center.copy()[:300], start(SIZE)[:300] - 1)
        assert not victim.is_running()
        assert process_of(run, 0).pid != victim.pid
    (told,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert f"range 0 of the centre, process {victim.pid}, does not answer" in told
    assert "did not answer in 1 s" in told


def test_a_server_that_is_stopped_in_a_move_does_not_hang_the_driver() -> None:
    with (
        served(1, wait_s=0.3) as run,
        run.file.held(0, 5),
        pytest.raises(TrainerError, match=r"range 0 of the centre was not free for 0\.3 s"),
    ):
        run.center.copy()


def test_ctrl_c_does_not_reach_the_servers(two: Served) -> None:
    for number in range(2):
        assert os.getpgid(process_of(two, number).pid) != os.getpgid(0)


DRIVER = """
import sys, time, torch
from trainer.parameter_server.center_file import center_file
from trainer.parameter_server.range_servers import range_servers
from trainer.strategies import CenterSettings
from trainer.strategies.arithmetic import Layout

with (
    center_file(9, Layout((slice(0, 9),), ()), CenterSettings(), 1, 2) as file,
    range_servers(file, "127.0.0.1", encrypted=False, start_s=120, wait_s=20),
):
    print("serving", flush=True)
    time.sleep(600)
"""


def test_servers_end_with_a_driver_that_is_killed_even_if_stopped() -> None:
    command = [sys.executable, "-c", DRIVER]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "serving\n"
        servers = psutil.Process(driver.pid).children()
        assert len(servers) == 2
        servers[0].send_signal(signal.SIGSTOP)
        driver.kill()
        _, alive = psutil.wait_procs(servers, timeout=30)
        assert not alive


@pytest.mark.parametrize("end", [None, KeyboardInterrupt, TrainerError])
def test_nothing_is_left_after_the_end(end: type[BaseException] | None) -> None:
    ports = []
    with ExitStack() as stack:
        if end is not None:
            stack.enter_context(pytest.raises(end))
        run = stack.enter_context(served(2))
        run.links[0].exchange(torch.ones(SIZE), ELASTIC, 1)
        ports = [address.port for address in run.ranges.addresses]
        assert set(processes()) >= set(ports)
        if end is not None:
            raise end
    assert not set(processes()) & set(ports)
    assert not Path(run.file.path).exists()
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))


def test_a_port_is_kept_while_its_server_is_away(two: Served) -> None:
    port = two.ranges.addresses[0].port
    process_of(two, 0).kill()
    with socket.socket() as thief, pytest.raises(OSError, match="in use"):
        thief.bind((HOST, port))


def test_ports_may_be_given_and_one_in_use_is_named() -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(TrainerError, match=f"listen on {HOST}:{port} .*in use"),
            served(1, port=port),
        ):
            pass
    with served(2, port=port) as run:
        assert [address.port for address in run.ranges.addresses] == [port, port + 1]


def test_a_server_that_cannot_start_says_why() -> None:
    file = CenterFile("/dev/null", 9, Layout((slice(0, 9),), ()), WITH_SQUARES, 1, 1)
    with (
        pytest.raises(TrainerError, match="server of range 0 of the centre: /dev/null: not to be"),
        range_servers(file, HOST, encrypted=False, start_s=120, wait_s=20),
    ):
        pass


def test_a_server_killed_before_it_serves_is_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = set(psutil.Process().children())

    def kill() -> None:
        while not (new := set(psutil.Process().children()) - before):
            time.sleep(0.005)
        for process in new:
            process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with served(1) as run:
        killer.join()
        run.links[0].exchange(torch.ones(SIZE), ELASTIC, 1)
    (told,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert told == "The server of range 0 of the centre does not start: it ended with SIGKILL"


def test_no_servers_are_asked_for_and_none_started() -> None:
    shared = CenterFile("/there", 9, LAYOUT, CenterSettings(is_shared=True), 1, 0)
    for file in (None, shared):
        with range_servers(file, HOST, encrypted=True, start_s=1, wait_s=1) as ranges:
            assert ranges is None


# What no worker of ours sends.

HALF = SIZE // 2
GOOD = Push(0, 1, 1, 1, ELASTIC)
BAD_PUSHES: list[tuple[Push, Tensor, str]] = [
    (GOOD, torch.ones(HALF + 1), "expected 501 values; received more"),
    (GOOD, torch.ones(HALF - 1), "expected 501 values; received 500"),
    (GOOD, torch.full((HALF,), float("nan")), "worker 0: NaN or infinite parameters after 1"),
    (dataclasses.replace(GOOD, move=Move("elastic", 7.0)), torch.ones(HALF), "rate of 0 to 1"),
    (dataclasses.replace(GOOD, rank=2), torch.ones(HALF), "expected a worker 0 to 1; received 2"),
    (dataclasses.replace(GOOD, rank=-1), torch.ones(HALF), "expected a whole number"),
    (dataclasses.replace(GOOD, attempt=2), torch.ones(HALF), "attempt 1 is the current one"),
    (dataclasses.replace(GOOD, attempt=0), torch.ones(HALF), "expected an attempt from 1"),
    (dataclasses.replace(GOOD, sequence=1 << 40), torch.ones(HALF), "is too large"),
    (dataclasses.replace(GOOD, move=Move("eval(1)")), torch.ones(HALF), "a move of elastic"),  # type: ignore[arg-type]
]


def test_garbage_is_refused_and_the_run_goes_on(two: Served) -> None:
    address = two.ranges.addresses[0]
    before, served_by = two.center.copy(), process_of(two, 0)
    with closing(RangeClient(address, 0, 20, 0)) as client:
        for push, sent, message in BAD_PUSHES:
            with pytest.raises(TrainerError, match=message):
                client.exchange(push, sent)
        with pytest.raises(TrainerError, match="attempt 7: refused"):
            client.fetch(0, 7)
    for token in ("", "wrong"):
        stranger = RangeClient(dataclasses.replace(address, token=token), 0, 20, 0)
        with closing(stranger), pytest.raises(TrainerError, match="token of this run is missing"):
            stranger.ping()
    for command in (b"\x80\x04garbage", json.dumps({"call": "explode"}).encode()):
        with pytest.raises(flight.FlightServerError):
            exchange_raw(address.location, address.token, command)
    with socket.create_connection((address.host, address.port), timeout=20) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(1000))
    assert torch.equal(two.center.copy(), before)
    two.links[0].exchange(torch.ones(SIZE), Move("subtract"), 1)
    assert torch.equal(two.center.copy()[:300], before[:300] - 1)
    assert process_of(two, 0) == served_by


def exchange_raw(location: str, token: str, command: bytes) -> None:
    headers = [(b"authorization", f"Bearer {token}".encode())]
    batch = pa.record_batch([pa.array(["a", "b"])], names=["values"])
    with flight.connect(location) as client:
        descriptor = flight.FlightDescriptor.for_command(command)
        writer, reader = client.do_exchange(
            descriptor, flight.FlightCallOptions(20, headers=headers)
        )
        with writer:
            writer.begin(batch.schema)
            writer.write_batch(batch)
            writer.done_writing()
            reader.read_chunk()


def test_what_one_range_would_refuse_reaches_none(two: Served) -> None:
    sent = torch.ones(SIZE)
    sent[-1] = float("inf")
    with pytest.raises(TrainerError, match="NaN or infinite parameters after 3"):
        two.links[0].exchange(sent, ELASTIC, 3)
    assert torch.equal(two.center.copy(), start(SIZE))
