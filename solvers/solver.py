"""Caffe's training loop, in Caffe's order.

Source: caffe/src/caffe/solver.cpp, Solver::Step, Solve, Snapshot, Restore.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from prototxt_parser.definition import NetDefinition
from prototxt_parser.net import Net
from prototxt_parser.proto.caffe_pb2 import SolverParameter
from prototxt_parser.random_source import RandomSource
from prototxt_parser.text import print_text
from prototxt_parser.weights import load_weights
from solvers.callbacks import Action, Callback
from solvers.feed import Feed, FeedOpener, open_net
from solvers.log_format import output_lines
from solvers.loss_window import LossWindow
from solvers.lr_policies import LearningRate
from solvers.settings import NetChoice, check_settings, test_choices, train_choice
from solvers.snapshots import probe_prefix, restore_solver, write_snapshot
from solvers.testing import TestNet, score
from solvers.updater import Updater

logger = logging.getLogger(__name__)


class Solver:
    """Trains a net as a Caffe solver does.

    Args:
        param: Settings, from `read_solver`.
        open_feed: Opens the data layers of a net; never called for a net without any.
        net: Definition to train and test instead of the one that `param` names.
        device: PyTorch device of nets and updates.
        seed: Seed of fillers and Dropout; None takes `random_seed`, and entropy if that is < 0.
        with_test_nets: Build test nets and test as `param` says.
        lr_stride: The rate follows iteration · lr_stride. K workers that split a run see the
            global progress with K.

    Attributes:
        param: The settings.
        net: The train net; `net.flat` holds parameters and gradients.
        feed: Its batches.
        tests: The test nets; they use the train net's parameters.
        history: Flat history slots of the update rule.
        iteration: Completed updates.
        loss_window: The losses behind `smoothed_loss`.
        callbacks: Hooks, run in order.
        poll: Asked once per iteration and between test batches what to do.
        stopped_early: Whether the last `advance` ended because `poll` said STOP.

    Raises:
        SolverError: Settings out of range or contradictory.
        PrototxtError: A net cannot be read or built.
    """

    def __init__(
        self,
        param: SolverParameter,
        open_feed: FeedOpener,
        *,
        net: NetDefinition | None = None,
        device: str | torch.device = "cpu",
        seed: int | None = None,
        with_test_nets: bool = True,
        lr_stride: int = 1,
    ) -> None:
        check_settings(param)
        if logger.isEnabledFor(logging.INFO):
            logger.info("Initializing solver from parameters: \n%s", print_text(param))
        self.param, self._open_feed, self.device = param, open_feed, torch.device(device)
        self._rate, self._lr_stride = LearningRate(param), lr_stride
        seed = param.random_seed if seed is None else seed
        random = RandomSource(seed)
        train = train_choice(param, net)
        link = "from" if " file: " in train.source else "specified in"
        logger.info("Creating training net %s %s", link, train.source)
        self.net, self.feed = self._build(train, random)
        self._updater = Updater(param, self.net.flat)
        _finetune(self.net, _weight_files(param))
        self.tests = [
            self._test_net(number, choice, RandomSource(random.seed + 1 + number))
            for number, choice in enumerate(test_choices(param, net) if with_test_nets else [])
        ]
        self.iteration = 0
        self.callbacks: list[Callback] = []
        self.poll: Callable[[], Action] = lambda: Action.NONE
        self.stopped_early = False
        self.loss_window = LossWindow(param.average_loss, 0)
        self._is_window_restored = False
        self._lap: tuple[int, float] = (0, time.monotonic())
        if param.snapshot:
            probe_prefix(param.snapshot_prefix)
        logger.info("Solver scaffolding done.")

    @property
    def history(self) -> list[Tensor]:
        """Flat history slots, laid out like `net.flat.data`."""
        return self._updater.history

    @property
    def lr(self) -> float:
        """Rate of the next update. Differs from Caffe: looking never advances `multistep`."""
        return self._rate.look(self.iteration * self._lr_stride)

    def settle_rate(self) -> None:
        """Bring the step of the learning rate up to an iteration that was set from outside."""
        self._rate.settle(self.iteration * self._lr_stride)

    @property
    def current_step(self) -> int:
        """Position of the step and multistep policies."""
        return self._rate.current_step

    @current_step.setter
    def current_step(self, value: int) -> None:
        self._rate.current_step = value

    @property
    def smoothed_loss(self) -> float:
        """Mean of the last `average_loss` losses."""
        return self.loss_window.value

    def load_weights(self, path: str | Path) -> None:
        """Copy a `.caffemodel` into the train net, and into what test nets do not share."""
        for net in (self.net, *(test.net for test in self.tests)):
            _finetune(net, [path])

    def step(self, count: int) -> None:
        """Run `count` iterations with a fresh loss window, as Caffe's `Step`."""
        self._reset_window()
        self.advance(count)

    def advance(self, count: int) -> None:
        """Run `count` iterations, or fewer if `poll` says STOP."""
        end = self.iteration + count
        self.stopped_early = False
        while self.iteration < end:
            if self._is_test_due() and not self._test_or_stop():
                return
            self._iterate()
            if not self._obey(self.poll()):
                return

    def solve(self) -> None:
        """Run to `max_iter`, with the snapshot, display and test that Caffe ends with."""
        logger.info("Solving %s", self.net.name)
        logger.info("Learning Rate Policy: %s", self.param.lr_policy)
        if not self._is_window_restored:
            self._reset_window()
        self.advance(self.param.max_iter - self.iteration)
        if self.param.snapshot_after_train and not self._is_due(self.param.snapshot):
            self.snapshot()
        if self.stopped_early:
            logger.info("Optimization stopped early.")
            return
        if self._is_due(self.param.display):
            self._final_display()
        if self.tests and self._is_due(self.param.test_interval):
            self.test_all()
        logger.info("Optimization Done.")

    def forward_backward(self) -> float:
        """Run `iter_size` forward and backward passes from zeroed gradients; return the loss."""
        self.net.flat.grad.zero_()
        self._set_debug_info(self._is_displaying())
        loss = 0.0
        for _ in range(self.param.iter_size):
            self.net(self._next_batch())
            self.net.backward()
            loss += float(self.net.loss.detach())
        return loss / self.param.iter_size

    def apply_update(self) -> None:
        """Update the parameters from the gradients at hand and count the iteration."""
        rate = self._rate.at(self.iteration * self._lr_stride)
        if self._is_displaying():
            logger.info("Iteration %d, lr = %g", self.iteration, rate)
        self._updater.update(rate, self.iteration)
        self.iteration += 1

    def test_all(self) -> list[dict[str, float]]:
        """Score every test net; returns one dict of output means each, fewer if stopped."""
        results: list[dict[str, float]] = []
        for number, test in enumerate(self.tests):
            logger.info("Iteration %d, Testing net (#%d)", self.iteration, number)
            result = score(
                test, with_loss=self.param.test_compute_loss, interrupted=self._test_interrupted
            )
            if result is None:
                logger.info("Test interrupted.")
                return results
            results.append(result)
        for callback in self.callbacks:
            callback.on_test(self, results)
        return results

    def snapshot(self) -> Path:
        """Write model, state and what only we keep; return the state file's path.

        Raises:
            PrototxtError: The file system refuses; earlier snapshots are untouched.
        """
        path = write_snapshot(self)
        for callback in self.callbacks:
            callback.on_snapshot(self, path)
        return path

    def restore(self, path: str | Path) -> None:
        """Continue from a `.solverstate`, ours or Caffe's; see `solvers.snapshots`."""
        self._is_window_restored = restore_solver(self, Path(path))
        self._lap = (self.iteration, time.monotonic())

    def close(self) -> None:
        """Close all data."""
        for feed in (self.feed, *(test.feed for test in self.tests)):
            feed.close()

    def _build(self, choice: NetChoice, random: RandomSource) -> tuple[Net, Feed]:
        net, feed = open_net(choice.definition, choice.state, self._open_feed, random)
        return net.to(self.device), feed

    def _test_net(self, number: int, choice: NetChoice, random: RandomSource) -> TestNet:
        logger.info("Creating test net (#%d) specified by %s", number, choice.source)
        net, feed = self._build(choice, random)
        net.share_with(self.net)
        _finetune(net, _weight_files(self.param))
        net.debug_info = net.debug_info or self.param.debug_info
        return TestNet(net, feed, choice.iterations)

    def _set_debug_info(self, is_displaying: bool) -> None:
        """Have the train net print what debug_info asks for: of the solver only on displays."""
        if self.param.debug_info:
            self.net.debug_info = is_displaying

    def _next_batch(self) -> dict[str, Tensor]:
        return dict(self.feed.next())

    def _iterate(self) -> None:
        for callback in self.callbacks:
            callback.on_start(self)
        loss = self.forward_backward()
        self.loss_window.add(loss, self.iteration)
        if self._is_displaying():
            self._display()
        for callback in self.callbacks:
            callback.on_gradients_ready(self)
        self.apply_update()
        for callback in self.callbacks:
            callback.on_iteration(self, loss)

    def _obey(self, action: Action) -> bool:
        """Take the snapshot that is due or asked for; return whether to go on."""
        if self._is_due(self.param.snapshot) or action is Action.SNAPSHOT:
            self.snapshot()
        self.stopped_early = self.stopped_early or action is Action.STOP
        return not self.stopped_early

    def _test_or_stop(self) -> bool:
        self.test_all()
        return not self.stopped_early

    def _test_interrupted(self) -> bool:
        action = self.poll()
        if action is Action.SNAPSHOT:
            self.snapshot()
        self.stopped_early = self.stopped_early or action is Action.STOP
        return self.stopped_early

    def _is_due(self, interval: int) -> bool:
        return interval > 0 and self.iteration % interval == 0

    def _is_test_due(self) -> bool:
        is_start = self.iteration == 0 and not self.param.test_initialization
        return bool(self.tests) and self._is_due(self.param.test_interval) and not is_start

    def _is_displaying(self) -> bool:
        return self._is_due(self.param.display)

    def _reset_window(self) -> None:
        self.loss_window = LossWindow(self.param.average_loss, self.iteration)
        self._is_window_restored = False

    def _display(self) -> None:
        since, start = self._lap
        seconds, done = time.monotonic() - start, self.iteration - since
        logger.info(
            "Iteration %d (%g iter/s, %gs/%d iters), loss = %g",
            self.iteration,
            done / seconds if seconds else 0.0,
            seconds,
            self.param.display,
            self.smoothed_loss,
        )
        self._lap = (self.iteration, time.monotonic())
        outputs = {name: self.net.blobs[name] for name in self.net.outputs}
        for line in output_lines("Train", outputs, self.net.loss_weights):
            logger.info("%s", line)
        for callback in self.callbacks:
            callback.on_display(self, self.iteration)

    @torch.no_grad()
    def _final_display(self) -> None:
        self.net(self._next_batch())
        self.loss_window.add(float(self.net.loss), self.iteration)
        logger.info("Iteration %d, loss = %g", self.iteration, self.smoothed_loss)
        for callback in self.callbacks:
            callback.on_display(self, self.iteration)


def _finetune(net: Net, paths: Sequence[str | Path]) -> None:
    for path in paths:
        logger.info("Finetuning from %s", path)
        load_weights(net, path)


def _weight_files(param: SolverParameter) -> list[str]:
    """Return the files of the `weights` field: repeated, each a comma-separated list."""
    return [name.strip() for entry in param.weights for name in entry.split(",") if name.strip()]
