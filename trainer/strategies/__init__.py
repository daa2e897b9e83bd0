"""Exchange strategies: what workers exchange and when. Importing this registers all of them."""

from trainer.strategies.asysg import Asysg, AsysgOptions
from trainer.strategies.base import (
    CenterSettings,
    LocalOptions,
    Options,
    Phase,
    Replica,
    Strategy,
    flag,
    require,
)
from trainer.strategies.deepspark import DeepSpark, DeepSparkOptions, options_from_conf
from trainer.strategies.diloco import Diloco, DilocoOptions
from trainer.strategies.downpour import Downpour, DownpourOptions
from trainer.strategies.easgd import Easgd, EasgdOptions
from trainer.strategies.hogwild import Hogwild
from trainer.strategies.registry import get_strategy, register_strategy, strategy_names
from trainer.strategies.sparknet import SparkNet, SparkNetOptions
from trainer.strategies.sync import Sync

__all__ = [
    "Asysg",
    "AsysgOptions",
    "CenterSettings",
    "DeepSpark",
    "DeepSparkOptions",
    "Diloco",
    "DilocoOptions",
    "Downpour",
    "DownpourOptions",
    "Easgd",
    "EasgdOptions",
    "Hogwild",
    "LocalOptions",
    "Options",
    "Phase",
    "Replica",
    "SparkNet",
    "SparkNetOptions",
    "Strategy",
    "Sync",
    "flag",
    "get_strategy",
    "options_from_conf",
    "register_strategy",
    "require",
    "strategy_names",
]
