"""What a process that serves a range has to do, and how it does it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Self

import torch

from trainer.errors import TrainerError
from trainer.parameter_server.address import Address, Endpoint
from trainer.parameter_server.center_file import CenterFile
from trainer.parameter_server.center_range import CenterRange
from trainer.parameter_server.flight_server import running
from trainer.parameter_server.range_service import RangeService
from trainer.strategies.arithmetic import Layout
from trainer.strategies.base import CenterSettings

READY = "ready"


@dataclass(frozen=True)
class RangeJob:
    """Which range to serve, and where. It goes through a pipe, because secrets are in it.

    Attributes:
        file: Where the centre is.
        number: Which range of it.
        endpoint: Where to listen.
        wait_s: Longest wait of one exchange for another.
    """

    file: CenterFile
    number: int
    endpoint: Endpoint
    wait_s: float

    def to_json(self) -> str:
        """Return it in one line."""
        file, where = self.file, self.endpoint.address
        values = {
            "file": [file.path, file.size, file.workers, file.servers],
            "settings": asdict(file.settings),
            "weights": [(part.start, part.stop) for part in file.layout.weights],
            "statistics": [(part.start, part.stop) for part in file.layout.statistics],
            "number": self.number,
            "address": [where.host, where.port, where.token],
            "certificate": (where.certificate or b"").decode(),
            "client_certificate": where.client_certificate.decode(),
            "key": self.endpoint.key.decode(),
            "wait_s": self.wait_s,
        }
        return json.dumps(values)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Return the job that `to_json` has written."""
        values = json.loads(line)
        path, size, workers, servers = values["file"]
        weights, statistics = (
            tuple(slice(*part) for part in values[name]) for name in ("weights", "statistics")
        )
        facts = Layout(weights, statistics), CenterSettings(**values["settings"])
        host, port, token = values["address"]
        certificates = values["certificate"].encode() or None, values["client_certificate"].encode()
        address = Address(host, port, token, *certificates)
        return cls(
            CenterFile(path, size, *facts, workers, servers),
            values["number"],
            Endpoint(address, values["key"].encode()),
            values["wait_s"],
        )


@contextmanager
def serving_range(job: RangeJob) -> Iterator[str]:
    """Serve a range while the context lasts; gives READY, or why it is not served."""
    torch.set_num_threads(1)  # the servers of a host share its cores, and calls come in threads
    try:
        served = CenterRange(job.file, job.number, job.wait_s)
        with running(lambda endpoint: RangeService(served, endpoint), job.endpoint):
            yield READY
    except TrainerError as error:
        yield str(error)
