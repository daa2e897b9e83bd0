"""A look at the Python of every executor, before anything depends on it.

It runs beneath Spark's own Python workers, which would end at the first difference: a pipe from the
executor's Java process to its Python. So what is missing is told of all hosts at once.
"""

from __future__ import annotations

import importlib
import json
import pickle
import re
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.errors import PySparkException

from trainer.cluster.java_errors import first_line
from trainer.errors import TrainerError
from trainer.extensions import Extensions

# Of the distributions that workers import: the module, and what setup.cfg asks of it.
REQUIRED = {
    "torch": ("torch", ">=2.6"),
    "numpy": ("numpy", ">=1.26"),
    "protobuf": ("google.protobuf", ">=6.31.1,<8"),
    "lmdb": ("lmdb", ">=1.4"),
    "h5py": ("h5py", ">=3.10"),
    "pillow": ("PIL", ">=10"),
    "tqdm": ("tqdm", ">=4.66"),
    "pyarrow": ("pyarrow", ">=17"),
}

# Written for any Python 3. The name of the host is the one that workers report.
_LOOK = """
import importlib.util, json, socket, sys
from importlib import metadata
def look(distribution, module):
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except ImportError:
        return None
    try:
        return metadata.version(distribution) or ""
    except metadata.PackageNotFoundError:
        return ""
wanted = json.loads(sys.argv[1])
found = {name: look(name, module) for name, module in wanted.items()}
print(json.dumps([socket.gethostname(), "%d.%d" % sys.version_info[:2], found]))
"""
# Without a Python there is nobody but the shell to say so.
_COMMAND = '"$0" -c "$1" "$2" || echo "[\\"$(uname -n)\\", null, {}]"'


@final
@dataclass(frozen=True)
class Findings:
    """What an executor's Python has.

    Attributes:
        host: Name of its machine.
        python: Version, as in "3.11"; None if there is no Python that runs.
        versions: By name of what is wanted: None where it is missing, "" where its version is not
            known.
    """

    host: str
    python: str | None
    versions: Mapping[str, str | None]


def check_executors(
    context: SparkContext, slots: int, modules: Sequence[str], timeout_s: float
) -> None:
    """Refuse executors whose Python cannot run workers.

    Args:
        context: Its executors are there.
        slots: Tasks that run at once; so many make sure that every executor gets one.
        modules: What must be there besides `REQUIRED`.
        timeout_s: Longest wait for the answers.

    Raises:
        TrainerError: Says of every host what is missing, and what to do.
    """
    wanted = {name: module for name, (module, _) in REQUIRED.items()}
    wanted |= {module: module for module in modules}
    found = _look(context, slots, wanted, timeout_s)
    problems = {f"  {each.host}: {problem}" for each in found if (problem := describe(each))}
    if problems:
        raise TrainerError(
            "workers cannot run on these executors:\n"
            + "\n".join(sorted(problems))
            + f"\ntheir Python is {context.pythonExec}. Spark takes the one that PYSPARK_PYTHON "
            "names, in an environment that you install on every host, send as an archive "
            "(spark.archives), or have in the container's image: see docs/clusters.md"
        )


def check_imports(
    context: SparkContext, slots: int, extensions: Extensions, timeout_s: float
) -> None:
    """Refuse executors that cannot import what workers run; those that can have it then.

    What a worker raises before it has reached the driver, Spark would only try again.

    Args:
        context: Our code has been sent to its executors.
        slots: Tasks that run at once.
        extensions: The user's modules.
        timeout_s: Longest wait for all of them.

    Raises:
        TrainerError: Says of every host what cannot be imported.
    """
    parcel = pickle.dumps(extensions)

    def attempt(numbers: Iterable[int]) -> Iterator[str]:  # travels whole: it needs no module here
        del numbers
        try:
            importlib.import_module("trainer.cluster.spark")
            pickle.loads(parcel).install()
        except Exception as error:  # whatever it is, the driver has to name it
            yield f"  {socket.gethostname()}: {type(error).__name__}: {error}"

    group = "torrefy: importing what workers run"
    context.setJobGroup(group, group, interruptOnCancel=True)
    timer = threading.Timer(timeout_s, context.cancelJobGroup, (group,))
    timer.start()
    try:
        found = context.parallelize(range(slots), slots).mapPartitions(attempt).collect()
    except (Py4JError, PySparkException) as error:
        raise TrainerError(
            f"the executors have not imported in {timeout_s:g} s what workers run: {_why(error)}"
        ) from error
    finally:
        timer.cancel()
        context._jsc.clearJobGroup()
    if found:
        raise TrainerError(
            "workers cannot run on these executors:\n" + "\n".join(sorted(set(found)))
        )


def describe(found: Findings) -> str:
    """Return what keeps workers from running on an executor, or ""."""
    own = "{}.{}".format(*sys.version_info[:2])
    if found.python is None:
        return "no Python of that name runs"
    if found.python != own:
        return f"Python {found.python}, and the driver has {own}"
    problems = [f"{name} is missing" for name, version in found.versions.items() if version is None]
    for name, (_, bounds) in REQUIRED.items():
        version = found.versions.get(name)
        if version and not satisfies(version, bounds):
            problems.append(f"{name} {version}, expected {bounds}")
    return "; ".join(problems)


def satisfies(version: str, bounds: str) -> bool:
    """Return whether a version keeps bounds such as ">=6.31.1,<8"."""
    for bound in bounds.split(","):
        is_lower = bound.startswith(">=")
        limit = _numbers(bound.lstrip("<>="))
        if (_numbers(version) >= limit) != is_lower:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with: (2, 13, 0) of "2.13.0+cpu"."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in found[0].split(".")) if found else ()


def _look(
    context: SparkContext, slots: int, wanted: Mapping[str, str], timeout_s: float
) -> Iterable[Findings]:
    jvm: Any = context._jvm
    java: Any = context._jsc
    command = ["sh", "-c", _COMMAND, context.pythonExec, _LOOK, json.dumps(wanted)]
    context.setJobDescription("torrefy: looking at the executors' Python")
    try:
        environment = {name: str(value) for name, value in context.environment.items()}
        pipe = java.parallelize(list(range(slots)), slots).pipe(command, environment)
        answers = pipe.collectAsync()
        try:
            lines = answers.get(int(timeout_s), jvm.java.util.concurrent.TimeUnit.SECONDS)
        finally:
            answers.cancel(True)
    except Py4JError as error:
        raise TrainerError(
            f"the executors' Python could not be looked at: {_why(error)}"
        ) from error
    finally:
        context.setJobDescription("")
    return [Findings(*json.loads(line)) for line in lines]


def _why(error: Py4JError | PySparkException) -> str:
    java: Any = getattr(error, "java_exception", None)
    if java is not None and "TimeoutException" in java.getClass().getName():
        return "they did not answer in time"
    return first_line(error)
