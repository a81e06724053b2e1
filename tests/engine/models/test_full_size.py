"""The shipped configs describe exactly the tensors that full-size single files contain."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from picowatch.catalog import read_config
from picowatch.engine.devices import choose_target
from picowatch.engine.models import parts, sd2, sdxl
from picowatch.engine.models.checkpoints import CONFIGS
from picowatch.engine.models.weights import empty
from tests.catalog.unets import sd2_shapes, sdxl_shapes

CPU = choose_target("cpu", "float32")
FULL: dict[str, Any] = {"sd2": sd2_shapes, "sdxl": sdxl_shapes}
TEXTS: dict[str, list[tuple[str, Any, Any]]] = {
    "sd2": [("text_encoder", CLIPTextModel, sd2._read)],
    "sdxl": [
        ("text_encoder", CLIPTextModel, sdxl._read_first),
        ("text_encoder_2", CLIPTextModelWithProjection, sdxl._read_second),
    ],
}


@pytest.mark.parametrize("family", FULL)
def test_every_weight_of_the_models_is_in_the_file(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name and shape, converted from the original's names."""
    shapes = FULL[family]()

    def holes(files: Any, target: Any, wanted: Any = lambda name: True) -> Any:
        return {
            name: torch.empty(shape, device="meta")
            for name, shape in shapes.items()
            if wanted(name)
        }

    for module in (parts, sd2, sdxl):
        monkeypatch.setattr(module, "read_tensors", holes)
    configs = CONFIGS[family]
    unet_config, vae_config = (
        read_config(configs / part / "config.json") for part in ("unet", "vae")
    )
    found = [
        (empty(UNet2DConditionModel, unet_config), parts.read_single_unet(Path(), unet_config, CPU))
    ]
    if any(name.startswith("first_stage_model.encoder.") for name in shapes):
        vae = empty(AutoencoderKL, vae_config)
        found.append((vae, parts.read_single_vae(Path(), vae_config, CPU)))
    for part, kind, read in TEXTS[family]:
        model = empty(kind, CLIPTextConfig(**read_config(configs / part / "config.json")))
        found.append((model, parts.text_encoder_names(model, read(model, Path(), CPU))))
    for model, tensors in found:
        expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
        assert {name: tensor.shape for name, tensor in tensors.items()} == expected
