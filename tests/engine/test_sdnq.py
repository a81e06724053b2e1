"""Folders whose weights SDNQ has packed: they draw what the same weights in full draw."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from picowatch.catalog import Catalog
from picowatch.catalog.dequantise import packed_weights
from picowatch.catalog.headers import read_header
from picowatch.engine.model.dequantise import multiplied_out
from picowatch.engine.model.load import bytes_of_parts
from picowatch.errors import ModelRefused, RenderFailed
from tests.engine.demo import CPU, read_part
from tests.engine.part_files import KLEIN, QWEN, Z_IMAGE
from tests.engine.rungs import lora_of, plain_and_styled
from tests.engine.sdnq_packer import pack_folder
from tests.engine.tiny_flows import tiny_flow

WRITTEN = Path(__file__).with_name("sdnq.safetensors")
Settings = Mapping[str, Any]
DYNAMIC: Settings = {
    "weights_dtype": "uint4", "modules_dtype_dict": {"int8": ["a"]}, "group_size": 8,
}  # fmt: skip
SVD: Settings = {"weights_dtype": "int4", "use_svd": True, "svd_rank": 4}
ROTATED: Settings = {"weights_dtype": "uint4", "use_hadamard": True, "hadamard_group_size": 16}


def test_weights_are_those_that_sdnq_computes_with() -> None:
    """The file was written by SDNQ 0.2.8, with what it multiplied each layer out to."""
    tensors, layers = load_file(WRITTEN), packed_weights([read_header(WRITTEN)])
    assert len(layers) == 17
    for name, packed in layers.items():
        group = re.search(r"hadamard_group_size=(\d+)", name)
        if "hadamard" in name:
            packed = packed._replace(rotated=int(group[1]) if group else 256)
        ours = multiplied_out(packed, {end: tensors[part] for end, part in packed.parts.items()})
        assert (ours - tensors[name.removesuffix("weight") + "expected"]).abs().max() < 1e-6, name


def folders(home: Path, folder: str, parts: Mapping[str, Settings]) -> Path:
    """A models folder with a packed checkpoint, and the same in full."""
    models = home / "models"
    checkpoints = models / "checkpoints"
    checkpoints.mkdir(parents=True)
    pack_folder(tiny_flow(folder), checkpoints / "mine-turbo", checkpoints / "wide-turbo", parts)
    return models


BOTH = {
    KLEIN: {"transformer": DYNAMIC, "text_encoder": {"weights_dtype": "uint4"}},
    Z_IMAGE: {"transformer": SVD, "text_encoder": DYNAMIC},
    QWEN: {"transformer": ROTATED, "text_encoder": {"weights_dtype": "int8"}},
}


@pytest.mark.parametrize("folder", BOTH)
def test_a_packed_folder_draws_what_its_weights_in_full_draw(tmp_path: Path, folder: str) -> None:
    """Also with a LoRA. Weights stay packed in memory, which is what was reckoned."""
    models = folders(tmp_path, folder, BOTH[folder])
    lora = lora_of(models, folder)
    plain, styled = plain_and_styled(models, "mine-turbo", lora)
    assert np.array_equal([plain, styled], plain_and_styled(models, "wide-turbo", lora))
    assert not np.array_equal(plain, styled)
    packed, wide = (
        Catalog(models).find("checkpoint", f"{prefix}-turbo") for prefix in ("mine", "wide")
    )
    assert not Catalog(models).scan().refused
    sizes, full = bytes_of_parts(packed, CPU), bytes_of_parts(wide, CPU)
    for part, size in {"transformer": sizes.denoiser, "text_encoder": sizes.encoders[0]}.items():
        held = read_part(packed, part)
        assert held.dtype == torch.float32
        nbytes = sum(tensor.nbytes for tensor in held.state_dict().values())
        assert size == pytest.approx(nbytes, rel=0.05), part
    assert sizes.vae == full.vae and sizes.denoiser < full.denoiser


# They do not say whether columns were rotated: a text encoder would silently misread. The sides of
# a packed weight are compared, as those of every weight.
CHANGED: list[tuple[Settings, Settings, str]] = [
    (ROTATED, {"quantization_config": None}, "quant_method: None"),
    (SVD, {"intermediate_size": 64}, "does not fit its kind of model"),
]


@pytest.mark.parametrize(("settings", "changes", "words"), CHANGED)
def test_packed_weights_with_another_config_are_refused(
    tmp_path: Path, settings: Settings, changes: Settings, words: str
) -> None:
    models = folders(tmp_path, Z_IMAGE, {"text_encoder": settings})
    path = models / "checkpoints/mine-turbo/text_encoder/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    model = Catalog(models).find("checkpoint", "mine-turbo")
    with pytest.raises((ModelRefused, RenderFailed), match=words):
        read_part(model, "text_encoder")
