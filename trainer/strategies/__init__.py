"""Exchange strategies: what workers exchange and when. Importing this registers all of them."""

from trainer.strategies.base import Options, Replica, Strategy
from trainer.strategies.deepspark import DeepSpark, DeepSparkOptions, options_from_conf
from trainer.strategies.registry import get_strategy, register_strategy, strategy_names
from trainer.strategies.sparknet import SparkNet, SparkNetOptions

__all__ = [
    "DeepSpark",
    "DeepSparkOptions",
    "Options",
    "Replica",
    "SparkNet",
    "SparkNetOptions",
    "Strategy",
    "get_strategy",
    "options_from_conf",
    "register_strategy",
    "strategy_names",
]
