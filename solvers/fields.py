"""What every field of a solver file means here; `docs/solvers.md` is made of these tables."""

from __future__ import annotations

HONOURED: dict[str, str] = {
    "train_net": "File of the train net; exactly one of the four fields that can name one.",
    "test_net": "Files of test nets, each with its own `test_iter`.",
    "test_iter": "Batches per test, one number per test net; those beyond `test_net_param` and "
    "`test_net` test `net` or `net_param`. None: no test nets.",
    "test_interval": "Iterations from test to test; must be > 0 if there are test nets.",
    "base_lr": "The rate that the policy starts from.",
    "display": "Iterations from one log of loss and outputs to the next; 0: never.",
    "max_iter": "Updates of the whole run.",
    "lr_policy": "See above. Without it a file is refused, as by Caffe.",
    "gamma": "See the policies; must be >= 0.",
    "power": "See the policies.",
    "momentum": "μ of SGD and Nesterov, the decay of AdaDelta, β₁ of Adam; AdaGrad and RMSProp "
    "refuse it.",
    "weight_decay": "Added to the gradient as `regularization_type` says, times `decay_mult`.",
    "stepsize": "See the policies; `step` needs it > 0.",
    "snapshot": "Iterations from snapshot to snapshot; 0: only at the end.",
    "snapshot_prefix": "Start of the names of snapshots. Not given: the solver file's path without "
    "its ending. A folder: the solver file's name in it. Tried before training.",
    "snapshot_diff": "Gradients are saved with the model.",
    "solver_mode": "GPU, if the file says so and there is one, for the command line. Elsewhere the "
    "caller chooses the device.",
    "device_id": "Which GPU, for the command line.",
    "test_compute_loss": "Tests log their total loss too.",
    "random_seed": "Seed of fillers, Dropout and the data; negative: a new one each time. The "
    "numbers drawn are not Caffe's.",
    "train_net_param": "The train net itself, in the solver file.",
    "test_net_param": "Test nets themselves.",
    "debug_info": "Each display logs the mean sizes of values and gradients too, layer by layer.",
    "net": "File of the train net and of test nets.",
    "net_param": "The net itself, for training and tests.",
    "train_state": "Level and stages added to those of the train net.",
    "test_state": "Level and stages of the test nets: none, or one per test net.",
    "snapshot_after_train": "A snapshot at the end, unless one was just taken.",
    "regularization_type": "L2 adds decay · w, L1 decay · sign(w).",
    "solver_type": "The old form of `type`; made into it when the file is read. Both: refused.",
    "delta": "δ of AdaGrad, RMSProp, AdaDelta and Adam.",
    "test_initialization": "Test at iteration 0 too.",
    "average_loss": "Losses that the displayed one is the mean of.",
    "stepvalue": "Iterations at which `multistep` moves on.",
    "clip_gradients": "Largest L2 norm of all gradients, added up over `iter_size` and before "
    "decay; negative: any.",
    "iter_size": "Forward and backward passes per update; their gradients and losses are averaged.",
    "snapshot_format": "BINARYPROTO (`.caffemodel`, `.solverstate`) or HDF5 (both with `.h5`).",
    "rms_decay": "ρ of RMSProp; must be at least 0 and below 1.",
    "momentum2": "β₂ of Adam.",
    "type": "Which solver.",
    "weights": "Models to start from, in order; each entry may name several with commas between.",
}

IGNORED: dict[str, str] = {
    "layer_wise_reduce": "It schedules the exchange between GPUs of one process, which there is "
    "none of; no number depends on it.",
}
