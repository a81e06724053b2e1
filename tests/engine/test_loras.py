"""LoRAs in use by diffusers and peft: what they add, and that nothing of them stays behind."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from accelerate.hooks import CpuOffload  # type: ignore[import-untyped]
from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter
from gguf import GGMLQuantizationType, quants
from torch import nn

import picowatch
from picowatch.catalog import Catalog
from picowatch.engine.load import load
from picowatch.engine.loaded import Loaded
from picowatch.engine.loras import Loras
from picowatch.errors import RenderFailed
from picowatch.recipe.request import LoraUse
from tests.engine.adapters import Tensors, kohya_lora, random_layer, write
from tests.engine.demo import CPU
from tests.engine.tiny_flows import tiny_flow
from tests.kinds import one_of_each_kind

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
    # Chroma's transformer in diffusers 0.42 itself.
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]
_D: Any = diffusers
DEMO = Path(picowatch.__file__).parent / "assets/demo"
TO_K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
FLAT_TO_K = f"lora_unet_{TO_K.replace('.', '_')}"


@pytest.fixture
def pipeline() -> Any:
    """The demo model's."""
    return quiet(_D.StableDiffusionPipeline, DEMO)


def quiet(kind: Any, folder: Path) -> Any:
    found = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    found.set_progress_bar_config(disable=True)
    return found


class Folder:
    """LoRA files by name; `hash` is the name, too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[str] = []

    def find(self, _: str, name: str, __: str) -> Path:
        self.found.append(name)
        return self.path / f"{name}.safetensors"

    def add(self, name: str, tensors: Tensors) -> None:
        write(self.path / f"{name}.safetensors", tensors)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def loras(pipeline: Any, folder: Folder) -> Loras:
    return Loras(pipeline, folder.find)


def use(name: str, weight: float = 1.0) -> LoraUse:
    return LoraUse(name, name, weight)


@torch.inference_mode()
def draw(pipeline: Any, **values: Any) -> Any:
    """Two steps of the demo model, as whole numbers."""
    given = {"prompt": "a red circle", "num_inference_steps": 2, "width": 64, "height": 64}
    generator = torch.Generator().manual_seed(7)
    image = pipeline(**(given | values), generator=generator, output_type="np").images[0]
    return (image * 255).round()


def apart(one: Any, other: Any) -> float:
    return float(np.abs(one - other).max())


def weights(pipeline: Any) -> dict[str, torch.Tensor]:
    """Copies of all weights."""
    return {
        f"{part}.{name}": tensor.clone()
        for part, model in pipeline.components.items()
        if isinstance(model, nn.Module)
        for name, tensor in model.state_dict().items()
    }


def style(folder: Folder, pipeline: Any, name: str, seed: int) -> None:
    """A LoRA of the UNet and the text encoder."""
    folder.add(name, kohya_lora(pipeline.unet, pipeline.text_encoder, seed=seed))


def one_layer(module: Any) -> Tensors:
    """kohya's tensors for `TO_K`."""
    down, up = random_layer(module, 1)
    return {f"{FLAT_TO_K}.lora_down.weight": down, f"{FLAT_TO_K}.lora_up.weight": up}


def test_loras_change_the_picture_each_its_own_way(
    pipeline: Any, folder: Folder, loras: Loras
) -> None:
    """Several, by their weights; negative ones, too. The same one twice has the sum of both."""
    style(folder, pipeline, "a", 1)
    style(folder, pipeline, "b", 2)
    sets: list[tuple[LoraUse, ...]]
    sets = [(), (use("a", 0.6),), (use("b", 0.6),), (use("a", 0.6), use("b", 0.6))]
    sets += [(use("a", -0.6),), (use("a", 0.3),)]
    drawn = []
    for uses in sets:
        loras.apply(uses)
        assert loras.applied == uses
        drawn.append(draw(pipeline))
    for index, one in enumerate(drawn):
        assert all(apart(one, other) > 3 for other in drawn[:index])
    for again, one in (
        ([use("b", 0.6), use("a", 0.6)], drawn[3]),
        ([use("a", 0.5), use("a", 0.1)], drawn[1]),
        ([use("a", 0.0)], drawn[0]),
        ([use("a", 0.5), use("a", -0.5)], drawn[0]),
    ):
        loras.apply(again)
        assert apart(draw(pipeline), one) <= (2 if one is drawn[3] else 0)


def test_switches_leave_the_plain_checkpoint_as_it_was(
    pipeline: Any, folder: Folder, loras: Loras
) -> None:
    """Its weights, its layers and its pictures, bit by bit."""
    for number in range(10):
        style(folder, pipeline, f"style{number}", number)
    plain, before = draw(pipeline), weights(pipeline)
    layers = {name: type(module) for name, module in pipeline.unet.named_modules()}
    for switch in range(20):
        loras.apply([use("style0", 0.5), use(f"style{1 + switch % 9}", 0.5)])
    assert len(pipeline.unet.peft_config) == 2
    loras.apply([])
    after = weights(pipeline)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {name: type(module) for name, module in pipeline.unet.named_modules()} == layers
    assert np.array_equal(draw(pipeline), plain)


def test_a_lora_may_change_text_encoders(pipeline: Any, folder: Folder, loras: Loras) -> None:
    """Most for flow families do not, and T5 takes longer than a step."""
    style(folder, pipeline, "both", 1)
    folder.add("unet", one_layer(pipeline.unet.get_submodule(TO_K)))
    for names in (["unet"], ["unet", "both"], ["both"], ["unet"], []):
        loras.apply([use(name) for name in names])
        assert loras.adapts_encoders == ("both" in names)


def test_a_lora_of_another_size_is_refused(folder: Folder, loras: Loras) -> None:
    """diffusers would make some modules larger for it."""
    wide = {"down": torch.zeros(4, 768), "up": torch.zeros(320, 4)}
    folder.add("wide", {f"{FLAT_TO_K}.lora_{half}.weight": one for half, one in wide.items()})
    with pytest.raises(RenderFailed, match=r"'wide' is for a model of another size: .* 768 to 320"):
        loras.apply([use("wide")])
    assert loras.applied == ()


@pytest.mark.parametrize("before", [(), (use("a"),)], ids=["none", "one"])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), ValueError("odd")])
def test_a_lora_that_cannot_be_loaded_leaves_nothing(
    pipeline: Any,
    folder: Folder,
    loras: Loras,
    before: tuple[LoraUse, ...],
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even if its layers are in the UNet already, nor do those before it act; later it acts."""
    for number, name in enumerate("ab"):
        style(folder, pipeline, name, number)
    drawn = draw(pipeline)
    loras.apply(before)

    def load_adapter(**_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.text_encoder, "load_adapter", load_adapter)
        refused = type(error) if "memory" in str(error) else RenderFailed
        with pytest.raises(refused, match=str(error)):
            loras.apply([use("b")])
    assert loras.applied == ()
    assert np.array_equal(draw(pipeline), drawn)
    loras.apply([use("b")])
    assert apart(draw(pipeline), drawn) > 3


def test_what_of_a_lora_does_nothing_is_said(pipeline: Any, folder: Folder, loras: Loras) -> None:
    """Three keys by name; if all do nothing it is refused."""
    deep = "lora_unet_down_blocks_3_attentions_0_proj_in"
    halves = {
        f"{deep}.lora_down.weight": torch.zeros(4, 64),
        f"{deep}.lora_up.weight": torch.zeros(64, 4),
        f"{deep}.alpha": torch.tensor(1.0),
    }
    folder.add("other", halves)
    with pytest.raises(RenderFailed, match=r"is for another kind of model: .* 'lora_unet"):
        loras.apply([use("other")])
    more = {"lora_unet_mid_block_time.lora_up.weight": torch.zeros(4, 4), "x": torch.zeros(1)}
    folder.add("deep", one_layer(pipeline.unet.get_submodule(TO_K)) | halves | more)
    loras.apply([use("deep", 0.5)])
    (warning,) = loras.warnings
    assert warning.startswith("The LoRA 'deep' has parts that do nothing with this checkpoint: ")
    assert warning.endswith(f": {', '.join(sorted(halves))} and 2 more.")
    loras.apply([])
    assert loras.warnings == ()


# Tiny folders, and what scripts call their pipelines with.
FLOWS: dict[str, dict[str, Any]] = {
    "Z-Image-Turbo": {"guidance_scale": 0.0},
    "FLUX.1-dev": {"max_sequence_length": 64},
    "FLUX.2-klein": {},
    "Qwen-Image": {"true_cfg_scale": 1.0},
    "Krea-2-Turbo": {"guidance_scale": 0.0},
    "ERNIE-Image-Turbo": {"guidance_scale": 1.0, "use_pe": False},
    "sd3.5-medium": {"max_sequence_length": 64},
    "Chroma1-HD": {"max_sequence_length": 64},
    "Lumina-Image-2.0": {},
    "AuraFlow": {},
    "Sana": {"use_resolution_binning": False},
    "CogView4": {},
}


def flow(name: str) -> Any:
    """The pipeline of a tiny folder."""
    return quiet(diffusers.DiffusionPipeline, tiny_flow(name))


def merged(model: Any, weight: float) -> Tensors:
    """A LoRA of the layers of attention and feed-forward, and merged into them."""
    marks = ("attn", "attention.", "ff.", "feed_forward", "mlp.")
    tensors: Tensors = {}
    for number, (name, module) in enumerate(model.named_modules()):
        if isinstance(module, nn.Linear) and any(mark in name for mark in marks):
            down, up = random_layer(module, number, size=1)
            tensors[f"transformer.{name}.lora_A.weight"] = down
            tensors[f"transformer.{name}.lora_B.weight"] = up
            module.weight.data += weight * up @ down
    return tensors


@pytest.mark.parametrize("name", one_of_each_kind(FLOWS, ("Z-Image-Turbo", "FLUX.1-dev")))
def test_a_lora_gives_the_picture_of_merged_weights(folder: Folder, name: str) -> None:
    """For every family; afterwards every weight is what it was, bit for bit."""
    values = FLOWS[name]
    pipeline, changed = flow(name), flow(name)
    plain, before = draw(pipeline, **values), weights(pipeline)
    folder.add("style", merged(changed.transformer, 0.7))
    loras = Loras(pipeline, folder.find)
    loras.apply([use("style", 0.7)])
    styled = draw(pipeline, **values)
    assert loras.warnings == ()
    assert apart(styled, draw(changed, **values)) <= 1 < apart(styled, plain)
    loras.apply([])
    after = weights(pipeline)
    assert all(torch.equal(before[key], after[key]) for key in before.keys() | after.keys())
    assert np.array_equal(draw(pipeline, **values), plain)


def test_the_parts_for_t5_are_said_to_do_nothing(folder: Folder) -> None:
    """diffusers adapts FLUX.1's CLIP alone; kohya's third text encoder is T5."""
    pipeline = flow("FLUX.1-dev")
    clip = pipeline.text_encoder.get_submodule("encoder.layers.0.self_attn.out_proj")
    t5 = pipeline.text_encoder_2.get_submodule("encoder.block.0.layer.0.SelfAttention.q")
    names = {
        "te1_text_model_encoder_layers_0_self_attn_out_proj": clip,
        "te3_encoder_block_0_layer_0_SelfAttention_q": t5,
    }
    halves = {f"lora_{name}.lora_": random_layer(module, 1) for name, module in names.items()}
    tensors = {f"{key}down.weight": down for key, (down, _) in halves.items()}
    folder.add("words", tensors | {f"{key}up.weight": up for key, (_, up) in halves.items()})
    loras = Loras(pipeline, folder.find)
    loras.apply([use("words")])
    assert loras.adapts_encoders
    (warning,) = loras.warnings
    assert "lora_te3" in warning and "lora_te1" not in warning


@pytest.mark.parametrize("place", ["models", "layers"])
@torch.inference_mode()
def test_a_lora_acts_on_weights_that_are_moved_to_compute(folder: Folder, place: Any) -> None:
    """By accelerate's hooks or diffusers' groups, which come and go with its layers."""
    demo = Catalog(Path("nowhere")).demo
    parts = load(demo, CPU, CPU.device)
    loaded = Loaded(demo, parts, folder.find, CPU.device, place)
    pipeline = loaded.pipeline()
    style(folder, pipeline, "a", 1)
    style(folder, pipeline, "b", 2)
    plain = draw(pipeline)
    loaded.place_weights()
    for name in "ab":
        loaded.use_loras([use(name, 0.7)])
        styled = draw(loaded.pipeline())
        loaded.send_back()
        assert apart(styled, plain) > 3
        assert place == "layers" or isinstance(loaded.denoiser._hf_hook, CpuOffload)
        for model in (loaded.denoiser, parts["text_encoder"]):
            halves = [one for key, one in model.named_modules() if "lora_A.lora_" in key]
            assert halves and (place == "models" or all(map(_is_in_a_group, halves)))
    loaded.use_loras([])
    assert np.array_equal(draw(loaded.pipeline()), plain)


def _is_in_a_group(module: Any) -> bool:
    """Else it would not move with its layer; diffusers has no public name for this."""
    return "group_offloading" in getattr(module, "_diffusers_hook").hooks  # noqa: B009


def test_a_lora_acts_on_quantised_weights(folder: Folder) -> None:
    """A GGUF layer's weight has the shape of its bytes: 34 for 32 numbers in Q8_0."""
    pipeline = flow("Z-Image-Turbo")
    name, plain = next(
        (name, module)
        for name, module in pipeline.transformer.named_modules()
        if name.endswith("attention.to_q")
    )
    layer: Any = GGUFLinear(plain.in_features, plain.out_features, bias=False)
    layer.compute_dtype = torch.float32
    packed = quants.quantize(plain.weight.detach().numpy(), GGMLQuantizationType.Q8_0)
    parameter: Any = GGUFParameter
    kind = GGMLQuantizationType.Q8_0
    layer.weight = parameter(torch.from_numpy(packed), quant_type=kind)
    assert layer.weight.shape != plain.weight.shape
    pipeline.transformer.set_submodule(name, layer)
    down, up = random_layer(plain, 1)
    stem = f"transformer.{name}"
    halves = {f"{stem}.lora_A.weight": down.half(), f"{stem}.lora_B.weight": up.half()}
    folder.add("it", halves | {f"{stem}.alpha": torch.tensor(2.0 * len(down))})
    loras = Loras(pipeline, folder.find)
    x = torch.randn(3, plain.in_features, generator=torch.Generator().manual_seed(2))
    before = layer(x)
    loras.apply([use("it")])
    after = pipeline.transformer.get_submodule(name)(x)
    torch.testing.assert_close(after - before, 2 * x @ down.T @ up.T, rtol=1e-2, atol=1e-2)
    loras.apply([])
    assert pipeline.transformer.get_submodule(name) is layer
