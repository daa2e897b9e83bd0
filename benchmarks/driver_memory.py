"""Memory of the driver while two workers on local Spark train CaffeNet (61 M parameters).

    python benchmarks/driver_memory.py --runs /tmp/caffenet

CaffeNet's own net and solver, on a few drawn images in batches of two. Per strategy: the greatest
resident memory of the driver's Python process and of its Java process, with checkpoints and a
snapshot at the end; and the time of the longest exchange.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine import report

from prototxt_parser import read_net
from prototxt_parser.files import read_solver
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import print_text
from trainer.data.database import write_database

SIZE, IMAGES, BATCH, ITERATIONS = 227, 12, 2, 12
CASES = {
    "sparknet": ["--strategy", "sparknet", "--sync-interval", "2"],
    "sparknet_tls": ["--strategy", "sparknet", "--sync-interval", "2", "--encryption", "on"],
    "deepspark": ["--strategy", "deepspark", "--sync-interval", "2"],
    "deepspark_tls": ["--strategy", "deepspark", "--sync-interval", "2", "--encryption", "on"],
}


def write_files(folder: Path) -> None:
    """Write CaffeNet and its solver, made small in all but parameters, and drawn images."""
    random = np.random.default_rng(1)
    entries = []
    for number in range(IMAGES):
        image = random.integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)
        datum = caffe_pb2.Datum(
            channels=3, height=SIZE, width=SIZE, data=image.tobytes(), label=number
        )
        entries.append((f"{number:08d}".encode(), datum.SerializeToString()))
    write_database(folder / "images_lmdb", entries)
    net = read_net("caffenet.prototxt").param
    for layer in net.layer:
        if layer.type == "Data":
            layer.transform_param.ClearField("mean_file")
            layer.transform_param.scale = 0.01
            layer.data_param.source = str(folder / "images_lmdb")
            layer.data_param.batch_size = BATCH
    (folder / "caffenet.prototxt").write_text(print_text(net))
    param = read_solver("caffenet_solver.prototxt")
    param.net = str(folder / "caffenet.prototxt")
    param.test_iter[:] = [1]
    param.test_interval, param.snapshot, param.max_iter = ITERATIONS // 2, 0, ITERATIONS
    param.base_lr = 0.0001
    (folder / "caffenet_solver.prototxt").write_text(print_text(param))


def run_case(name: str, folder: Path) -> dict[str, Any]:
    """Train; return the greatest memory of the driver's processes, in MB."""
    out = folder / name
    command = [sys.executable, "-c", "import sys; from trainer.cli import main; sys.exit(main())"]
    command += ["train", "--solver", str(folder / "caffenet_solver.prototxt"), "--out", str(out)]
    command += ["--workers", "2", "--checkpoint-interval", "1", *CASES[name]]
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        peaks = {"driver_mb": 0.0, "java_mb": 0.0}
        watch = threading.Thread(target=_watch, args=(process.pid, peaks))
        start = time.monotonic()
        watch.start()
        status = process.wait()
        watch.join()
    if status:
        sys.exit(f"{name}: train ended with status {status}; see {log.name}")
    lines = (out / "caffenet_train_metrics.jsonl").read_text().splitlines()
    exchanges = [r["exchange_s"] for r in map(json.loads, lines) if r["kind"] == "exchange"]
    seconds = round(time.monotonic() - start)
    return {**peaks, "longest_exchange_s": round(max(exchanges), 2), "seconds": seconds}


def _watch(pid: int, peaks: dict[str, float]) -> None:
    """Note the greatest resident memory of a process and of its Java child until it ends."""
    while psutil.pid_exists(pid):
        try:
            driver = psutil.Process(pid)
            if driver.status() == psutil.STATUS_ZOMBIE:
                return
            _note(peaks, "driver_mb", driver)
            for child in driver.children():
                if "java" in child.name():
                    _note(peaks, "java_mb", child)
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.05)


def _note(peaks: dict[str, float], name: str, process: psutil.Process) -> None:
    """Note the peak that the kernel keeps for a process."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            peaks[name] = max(peaks[name], round(int(line.split()[1]) / 1024, 1))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder for data and runs")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--out", type=Path, help="file to add the result to (JSON lines)")
    args = parser.parse_args()
    folder = args.runs.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "images_lmdb").exists():
        write_files(folder)
    figures = {name: run_case(name, folder) for name in args.cases}
    report("driver_memory", figures, args.out)


if __name__ == "__main__":
    main()
