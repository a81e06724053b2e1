"""bfloat16 where the device computes it: elsewhere it takes four times as long as float32."""

from functools import cache

import torch

from picowatch.engine.model.devices import choose_target


def autocast(device: torch.device) -> torch.autocast:
    """Layers in the narrow type, for a `with` statement; in float32 they stay as they are."""
    narrow = working_type(device.type)
    return torch.autocast(device.type, torch.bfloat16, enabled=narrow == torch.bfloat16)


@cache
def working_type(device_type: str) -> torch.dtype:
    """bfloat16 or float32."""
    return choose_target(device_type, "auto").flow_dtype
