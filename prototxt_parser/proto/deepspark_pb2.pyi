from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class DeepSparkParameter(_message.Message):
    __slots__ = ("period", "moving_rate", "decay_rate", "decay_step", "decay_limit", "server_factor", "factor_decay_rate", "factor_decay_step", "factor_decay_limit")
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    MOVING_RATE_FIELD_NUMBER: _ClassVar[int]
    DECAY_RATE_FIELD_NUMBER: _ClassVar[int]
    DECAY_STEP_FIELD_NUMBER: _ClassVar[int]
    DECAY_LIMIT_FIELD_NUMBER: _ClassVar[int]
    SERVER_FACTOR_FIELD_NUMBER: _ClassVar[int]
    FACTOR_DECAY_RATE_FIELD_NUMBER: _ClassVar[int]
    FACTOR_DECAY_STEP_FIELD_NUMBER: _ClassVar[int]
    FACTOR_DECAY_LIMIT_FIELD_NUMBER: _ClassVar[int]
    period: int
    moving_rate: float
    decay_rate: float
    decay_step: int
    decay_limit: int
    server_factor: float
    factor_decay_rate: float
    factor_decay_step: int
    factor_decay_limit: int
    def __init__(self, period: _Optional[int] = ..., moving_rate: _Optional[float] = ..., decay_rate: _Optional[float] = ..., decay_step: _Optional[int] = ..., decay_limit: _Optional[int] = ..., server_factor: _Optional[float] = ..., factor_decay_rate: _Optional[float] = ..., factor_decay_step: _Optional[int] = ..., factor_decay_limit: _Optional[int] = ...) -> None: ...
