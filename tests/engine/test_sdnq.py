"""Folders whose weights SDNQ has packed: they draw what the same weights in full draw."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from picowatch.catalog import Catalog
from picowatch.catalog.headers import read_header
from picowatch.catalog.sdnq import packed_weights
from picowatch.engine.model.devices import choose_target
from picowatch.engine.model.load import bytes_of_parts, load_part
from picowatch.engine.model.narrow import widened
from picowatch.engine.model.sdnq import multiplied_out
from picowatch.errors import ModelRefused, RenderFailed
from tests.engine.flow_requests import flow_renderer, requests_of
from tests.engine.part_files import KLEIN, QWEN, Z_IMAGE
from tests.engine.requests import draw
from tests.engine.rungs import lora_of
from tests.engine.sdnq_packer import pack_folder
from tests.engine.tiny_flows import tiny_flow

CPU = torch.device("cpu")
FULL = choose_target("cpu", "float32")
WRITTEN = Path(__file__).with_name("sdnq.safetensors")
Settings = Mapping[str, Any]
DYNAMIC: Settings = {"weights_dtype": "uint4", "modules_dtype_dict": {"int8": ["a"]}}
SVD: Settings = {"weights_dtype": "uint4", "use_svd": True, "svd_rank": 4}
ROTATED: Settings = {"weights_dtype": "uint4", "use_hadamard": True, "hadamard_group_size": 16}


def test_weights_are_those_that_sdnq_computes_with() -> None:
    """The file was written by SDNQ 0.2.8, with what it multiplied each layer out to."""
    tensors, layers = load_file(WRITTEN), packed_weights([read_header(WRITTEN)])
    assert len(layers) == 17
    for name, packed in layers.items():
        group = re.search(r"hadamard_group_size=(\d+)", name)
        if "hadamard" in name:
            packed = packed._replace(rotated=int(group[1]) if group else 256)
        ours = multiplied_out(packed, {end: tensors[one] for end, one in packed.parts.items()})
        expected = tensors[name.removesuffix("weight") + "expected"]
        assert (ours - expected).abs().max() < 1e-6, name


def folders(home: Path, folder: str, parts: Mapping[str, Settings]) -> Path:
    """A models folder with a packed checkpoint, and the same in full."""
    models = home / "models"
    checkpoints = models / "checkpoints"
    checkpoints.mkdir(parents=True)
    pack_folder(tiny_flow(folder), checkpoints / "mine-turbo", checkpoints / "wide-turbo", parts)
    return models


BOTH = {
    (KLEIN, "flux2"): {"transformer": DYNAMIC, "text_encoder": {"weights_dtype": "uint4"}},
    (Z_IMAGE, "zimage"): {"transformer": SVD, "text_encoder": DYNAMIC},
    (QWEN, "qwen_image"): {"transformer": ROTATED, "text_encoder": {"weights_dtype": "int8"}},
}


@pytest.mark.parametrize("how", BOTH)
def test_a_packed_folder_draws_what_its_weights_in_full_draw(
    tmp_path: Path, how: tuple[str, str]
) -> None:
    """Also with a LoRA. Weights stay packed in memory, which is what was reckoned."""
    folder, mark = how
    models = folders(tmp_path, folder, BOTH[how])
    lora, pictures = lora_of(models, folder, mark), []
    for name in ("mine-turbo", "wide-turbo"):
        (one,) = requests_of(models, name, "prompt: a red cube")
        renderer = flow_renderer(models)
        pictures.append([draw(renderer, one)[0].pixels])
        pictures[-1] += [draw(renderer, replace(one, loras=(lora,)))[0].pixels]
    assert pictures[0] == pictures[1]
    assert pictures[0][0] != pictures[0][1]
    packed, wide = (Catalog(models).find("checkpoint", f"{one}-turbo") for one in ("mine", "wide"))
    assert not Catalog(models).scan().refused
    sizes, full = bytes_of_parts(packed, FULL), bytes_of_parts(wide, FULL)
    for part, size in {"transformer": sizes.denoiser, "text_encoder": sizes.encoders[0]}.items():
        held = load_part(packed, FULL, CPU, part)
        assert held.dtype == torch.float32
        nbytes = sum(tensor.nbytes for tensor in held.state_dict().values())
        assert size == pytest.approx(nbytes, rel=0.05), part
        plain = load_part(wide, FULL, CPU, part).state_dict()
        copied = widened(held, torch.bfloat16).state_dict()  # for a compiler
        assert copied.keys() == plain.keys() != held.state_dict().keys()
        for name, tensor in plain.items():
            assert copied[name].dtype == torch.bfloat16
            assert (copied[name] - tensor).abs().max() <= tensor.abs().max() / 50, name
    assert (sizes.numbers, sizes.vae) == (full.numbers, full.vae)
    assert sizes.denoiser < full.denoiser


def test_packed_weights_that_do_not_fit_their_config_are_refused(tmp_path: Path) -> None:
    """Without its settings it does not say whether columns were rotated: texts would be misread.

    The sides of packed weights are compared, as those of all.
    """
    models = folders(tmp_path, Z_IMAGE, {"text_encoder": ROTATED})
    path = models / "checkpoints/mine-turbo/text_encoder/config.json"
    config = json.loads(path.read_text())
    model = Catalog(models).find("checkpoint", "mine-turbo")
    path.write_text(json.dumps(config | {"intermediate_size": 2 * config["intermediate_size"]}))
    with pytest.raises(RenderFailed, match="does not fit its kind of model"):
        load_part(model, FULL, CPU, "text_encoder")
    del config["quantization_config"]
    path.write_text(json.dumps(config))
    with pytest.raises(ModelRefused, match="quant_method: None"):
        load_part(model, FULL, CPU, "text_encoder")
