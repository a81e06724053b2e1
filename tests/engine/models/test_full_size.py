"""The shipped configs describe exactly the tensors that full-size single files contain."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from picowatch.engine.models import parts, unets
from picowatch.engine.models.weights import empty
from transformers import CLIPTextConfig

from picowatch.catalog import read_config
from picowatch.engine.devices import choose_target
from tests.catalog.unets import sd2_shapes, sdxl_shapes

CPU = choose_target("cpu", "float32")
FULL: dict[str, Any] = {"sd2": sd2_shapes, "sdxl": sdxl_shapes}


@pytest.mark.parametrize("family", FULL)
def test_every_weight_of_the_models_is_in_the_file(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name and shape, converted from the original's names.

    Of 2.x's text encoder it has a layer and a projection besides, which are not used.
    """
    shapes = FULL[family]()

    def holes(files: Any, target: Any, wanted: Any = lambda name: True) -> Any:
        return {
            name: torch.empty(shape, device="meta")
            for name, shape in shapes.items()
            if wanted(name)
        }

    for module in (parts, unets):
        monkeypatch.setattr(module, "read_tensors", holes)
    configs = unets.CONFIGS[family]
    unet_config, vae_config = (
        read_config(configs / part / "config.json") for part in ("unet", "vae")
    )
    found = [
        (empty(UNet2DConditionModel, unet_config), parts.read_single_unet(Path(), unet_config, CPU))
    ]
    if any(name.startswith("first_stage_model.encoder.") for name in shapes):
        vae = empty(AutoencoderKL, vae_config)
        found.append((vae, parts.read_single_vae(Path(), vae_config, CPU)))
    for text in unets._FAMILIES[family].texts:
        config = CLIPTextConfig(**read_config(configs / text.folder / "config.json"))
        model = empty(text.kind, config)
        tensors = parts.text_encoder_names(model, text.read_single(model, Path(), CPU))
        others = ("encoder.layers.23.", "text_projection.") if family == "sd2" else ()
        used = {name: one for name, one in tensors.items() if not name.startswith(others)}
        found.append((model, used))
    for model, tensors in found:
        expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
        assert {name: tensor.shape for name, tensor in tensors.items()} == expected
