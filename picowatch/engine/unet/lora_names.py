"""The layers of a loaded checkpoint by the names that LoRA files have for them."""

from typing import Any

from torch import nn

from picowatch.catalog.lora_keys import Part, Place


def modules_by_place(unet: Any, text_encoder: Any) -> dict[Place, nn.Module]:
    """The layers a LoRA may add to: linear ones and convolutions."""
    parts: tuple[tuple[Part, Any], ...] = (("unet", unet), ("text_encoder", text_encoder))
    return {
        Place(part, name.replace(".", "_").removeprefix("text_model_")): module
        for part, model in parts
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
