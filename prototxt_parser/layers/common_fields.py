"""What the fields mean that every layer has; `docs/layers.md` is made of this table."""

from __future__ import annotations

COMMON_FIELDS: dict[str, str] = {
    "name": "Name, by which weights are copied. Of several layers with one name the first counts.",
    "type": "One of the types below, or one registered by a module of your own.",
    "bottom": "Blobs it reads, each the top of an earlier layer.",
    "top": "Blobs it writes. A bottom's name: in place. A loss may leave it out.",
    "loss_weight": "Weight in the net's loss, none or one per top; the elements of a top are added "
    "up. A loss has 1 without it. At 0 it is computed and trains nothing.",
    "param": "For each learned blob `name` (blobs of one name are shared), `share_mode` (STRICT: "
    "one shape; PERMISSIVE: one count), `lr_mult` and `decay_mult` (1). With `lr_mult: 0` it gets "
    "no gradient. Blobs without an entry have the defaults; more entries than blobs are refused.",
    "blobs": "Values of the learned blobs in place of fillers.",
    "include": "Rules on phase, level and stage, of which one must hold. Not with `exclude`.",
    "exclude": "Rules of which none may hold.",
    "phase": "Phase of this layer instead of the net's.",
    "propagate_down": "Which bottoms get a gradient, none or one per bottom; true forces one on a "
    "bottom that would get none.",
}
