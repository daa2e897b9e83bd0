"""The file of a centre that several processes map: what is where, and who may have a range."""

import logging
from dataclasses import replace

import pytest
import torch

from trainer.errors import TrainerError, UsageError
from trainer.parameter_server.address import make_endpoint
from trainer.parameter_server.center_file import CenterFile, center_file
from trainer.parameter_server.range_job import RangeJob
from trainer.strategies import CenterSettings
from trainer.strategies.arithmetic import Layout

WITH_SQUARES = CenterSettings(keeps_squares=True)
LAYOUT = Layout((slice(0, 7),), ())


@pytest.mark.parametrize(("size", "servers"), [(7, 1), (7, 2), (7, 3), (12, 5), (7, 7)])
def test_ranges_are_all_of_it_in_order_and_alike(size: int, servers: int) -> None:
    ranges = CenterFile("", size, LAYOUT, CenterSettings(), 2, servers).ranges
    assert [i for part in ranges for i in range(size)[part]] == list(range(size))
    lengths = [part.stop - part.start for part in ranges]
    assert len(lengths) == servers
    assert max(lengths) - min(lengths) <= 1


def test_more_servers_than_parameters_are_refused() -> None:
    with (
        pytest.raises(UsageError, match=r"servers: expected at most 7, .*received 8"),
        center_file(7, LAYOUT, CenterSettings(), 2, 8),
    ):
        pass


def test_a_centre_of_the_driver_alone_has_no_file() -> None:
    with center_file(7, LAYOUT, WITH_SQUARES, 2, 0) as file:
        assert file is None


@pytest.mark.parametrize("settings", [CenterSettings(), WITH_SQUARES])
@pytest.mark.parametrize("size", [7, 10])
def test_parts_do_not_overlap_and_all_who_map_it_see_them(
    settings: CenterSettings, size: int
) -> None:
    with center_file(size, LAYOUT, settings, 3, 2) as file:
        assert file is not None
        own, other = file.map(), replace(file).map()
        own.parameters.copy_(torch.arange(size))
        own.squares.fill_(5)
        own.attempts[:] = 1 << 62
        own.pushes[:] = [[1, 2, 3], [4, 5, 1 << 61]]
        assert other.parameters.tolist() == list(range(size))
        assert other.squares.tolist() == [5] * (size if settings.keeps_squares else 0)
        assert other.attempts.tolist() == [1 << 62] * 3
        assert other.pushes.tolist() == [[1, 2, 3], [4, 5, 1 << 61]]


def test_a_range_is_held_by_one_opening_at_a_time() -> None:
    with center_file(7, LAYOUT, CenterSettings(), 2, 2) as file:
        assert file is not None
        with file.held(1, 5):
            with file.held(0, 5):  # another range is another matter
                pass
            with (
                pytest.raises(TrainerError, match=r"range 1 .* not free for 0\.05 s"),
                file.held(1, 0.05),
            ):
                pass
        with file.held(1, 5):
            pass


def test_a_layout_is_cut_where_the_range_is() -> None:
    layout = Layout((slice(0, 4), slice(7, 12)), (slice(4, 7),))
    assert layout.cut(slice(0, 12)) == layout
    assert layout.cut(slice(2, 5)) == Layout((slice(0, 2),), (slice(2, 3),))
    assert layout.cut(slice(5, 6)) == Layout((), (slice(0, 1),))
    assert layout.cut(slice(6, 9)) == Layout((slice(1, 3),), (slice(0, 1),))


@pytest.mark.parametrize("encrypted", [True, False])
def test_a_job_goes_through_a_pipe_whole_and_shows_no_secret(
    encrypted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint = make_endpoint("127.0.0.1", 0, encrypted=encrypted)
    layout = Layout((slice(0, 4), slice(7, 12)), (slice(4, 7),))
    file = CenterFile("/there", 12, layout, CenterSettings(max_staleness=5), 3, 2)
    job = RangeJob(file, 1, endpoint, 7.5)
    known = replace(endpoint.address, client_key=b"")  # which is for the workers alone
    line = job.to_json()
    assert "\n" not in line
    assert RangeJob.from_json(line) == replace(job, endpoint=replace(endpoint, address=known))
    assert endpoint.address.token not in repr(job)
    assert "PRIVATE" not in repr(job)
