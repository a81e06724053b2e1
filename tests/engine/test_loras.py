"""LoRAs in use by peft: what they add, and that nothing of them stays behind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import peft
import pytest
import torch
from accelerate import cpu_offload_with_hook  # type: ignore[import-untyped]
from diffusers.hooks.layerwise_casting import apply_layerwise_casting
from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter
from gguf import GGMLQuantizationType, quants
from torch import nn

import picowatch
from picowatch.engine import loras as loras_module
from picowatch.engine.loras import Loras
from picowatch.errors import RenderFailed
from picowatch.recipe.request import LoraUse
from tests.engine.adapters import RANK, Tensors, kohya_lora, random_layer, write
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

    def add(self, name: str, tensors: Tensors, **metadata: str) -> None:
        write(self.path / f"{name}.safetensors", tensors, metadata or None)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def loras(pipeline: Any, folder: Folder) -> Loras:
    return Loras(pipeline, folder.find)


def use(name: str, weight: float = 1.0) -> LoraUse:
    return LoraUse(name, name, weight)


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


def one_layer(module: Any, seed: int = 1) -> tuple[Tensors, torch.Tensor]:
    """kohya's tensors for `TO_K`, and what they add to its weight."""
    down, up = random_layer(module, seed)
    halves = {f"{FLAT_TO_K}.lora_down.weight": down, f"{FLAT_TO_K}.lora_up.weight": up}
    return halves, up @ down


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


@pytest.mark.parametrize("switches", [10, pytest.param(100, marks=pytest.mark.heavy)])
def test_switches_leave_the_plain_checkpoint_as_it_was(
    pipeline: Any, folder: Folder, loras: Loras, switches: int
) -> None:
    """Its weights, its layers and its pictures, bit by bit."""
    for number in range(10):
        style(folder, pipeline, f"style{number}", number)
    plain, before = draw(pipeline), weights(pipeline)
    layers = {name: type(module) for name, module in pipeline.unet.named_modules()}
    for switch in range(switches):
        loras.apply([use("style0", 0.5), use(f"style{1 + switch % 9}", 0.5)])
    assert len(loras._loaded) <= loras_module._KEPT_FILES
    loras.apply([])
    after = weights(pipeline)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {name: type(module) for name, module in pipeline.unet.named_modules()} == layers
    assert np.array_equal(draw(pipeline), plain)


def test_one_that_acts_does_not_hear_those_that_are_kept(
    pipeline: Any, folder: Folder, loras: Loras
) -> None:
    """Layers that only another LoRA has compute as if it had never been there."""
    style(folder, pipeline, "all", 1)
    folder.add("one", one_layer(pipeline.unet.get_submodule(TO_K))[0])
    with torch.inference_mode():
        loras.apply([use("one")])
    alone = draw(pipeline)
    loras.apply([use("all"), use("one")])
    loras.apply([use("one")])
    assert not any(one.requires_grad for one in pipeline.unet.parameters())
    assert set(loras._loaded) == {"all", "one"}
    assert np.array_equal(draw(pipeline), alone)


@pytest.mark.parametrize("room", [0, 2**20], ids=["large", "small"])
def test_large_files_are_not_kept_beside_those_in_use(
    pipeline: Any, folder: Folder, loras: Loras, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones are, for the recipes that use them in turn."""
    monkeypatch.setattr(loras_module, "_KEPT_BYTES", room)
    for number, name in enumerate("ab"):
        style(folder, pipeline, name, number)
    for name in "abab":
        loras.apply([use(name)])
    assert set(loras._loaded) == ({"a", "b"} if room else {"b"})
    # Each reading finds the file before and after.
    assert folder.found == list("aabb") * (1 if room else 2)


def test_embeddings_are_to_be_encoded_again_if_a_text_encoder_changes(
    pipeline: Any, folder: Folder, loras: Loras
) -> None:
    """Most LoRAs for flow families only adapt the transformer, and T5 takes longer than a step."""
    style(folder, pipeline, "both", 1)
    folder.add("unet", one_layer(pipeline.unet.get_submodule(TO_K))[0])
    encoded = [loras.apply([use("unet")]), loras.apply([use("unet", 0.5)])]
    assert not any(encoded)
    assert loras.apply([use("unet"), use("both")])
    assert not loras.apply([use("both"), use("unet", 0.5)])
    assert loras.apply([use("both", 0.7)])
    assert loras.apply([use("unet")])
    assert not loras.apply([])


def test_a_lora_of_another_size_is_refused_and_those_in_use_stay(
    pipeline: Any, folder: Folder, loras: Loras
) -> None:
    """The next picture is as if it had not been asked for."""
    style(folder, pipeline, "a", 1)
    wide = {"down": torch.zeros(4, 768), "up": torch.zeros(320, 4)}
    folder.add("wide", {f"{FLAT_TO_K}.lora_{half}.weight": one for half, one in wide.items()})
    loras.apply([use("a")])
    styled = draw(pipeline)
    with pytest.raises(RenderFailed, match=r"'wide' is for a model of another size: .* 768 to 320"):
        loras.apply([use("a", 0.5), use("wide")])
    assert loras.applied == (use("a"),)
    assert np.array_equal(draw(pipeline), styled)


@pytest.mark.parametrize("before", [(), (use("a"),)], ids=["none", "one"])
def test_a_lora_that_finds_no_memory_leaves_nothing(
    pipeline: Any,
    folder: Folder,
    loras: Loras,
    before: tuple[LoraUse, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even if some of its layers were there already; later it acts."""
    for number, name in enumerate("ab"):
        style(folder, pipeline, name, number)
    loras.apply(before)
    drawn = draw(pipeline)
    with monkeypatch.context() as patch:
        patch.setattr(loras_module, "inject_adapter_in_model", _without_memory(2))
        with pytest.raises(torch.OutOfMemoryError):
            loras.apply([use("b")])
    assert loras.applied == before
    assert np.array_equal(draw(pipeline), drawn)
    loras.apply([use("b")])
    assert apart(draw(pipeline), drawn) > 3


def _without_memory(calls: int) -> Any:
    """peft's function, until the last of so many calls has done its work."""
    whole, counted = peft.inject_adapter_in_model, iter(range(1, calls + 1))

    def inject(*values: Any, **more: Any) -> None:
        whole(*values, **more)
        if next(counted) == calls:
            raise torch.OutOfMemoryError

    return inject


def test_what_of_a_lora_does_nothing_is_said(pipeline: Any, folder: Folder, loras: Loras) -> None:
    """Three keys by name; if all do nothing it is refused."""
    deep = "lora_unet_down_blocks_3_attentions_0_proj_in"
    halves = {
        f"{deep}.lora_down.weight": torch.zeros(4, 64),
        f"{deep}.lora_up.weight": torch.zeros(64, 4),
        f"{deep}.alpha": torch.tensor(1.0),
    }
    folder.add("other", halves)
    with pytest.raises(RenderFailed, match=r"is for another kind of model: no layer .* 'lora_unet"):
        loras.apply([use("other")])
    more = {"lora_unet_mid_block_time.lora_up.weight": torch.zeros(4, 4), "x": torch.zeros(1)}
    folder.add("deep", one_layer(pipeline.unet.get_submodule(TO_K))[0] | halves | more)
    loras.apply([use("deep", 0.5)])
    (warning,) = loras.warnings
    assert warning.startswith("The LoRA 'deep' has parts that do nothing with this checkpoint: ")
    assert warning.endswith(f": {', '.join(sorted(halves))} and 2 more.")
    loras.apply([])
    assert loras.warnings == ()


def test_a_file_that_lacks_a_half_is_refused(pipeline: Any, folder: Folder, loras: Loras) -> None:
    """If the checkpoint has the layer."""
    tensors, _ = one_layer(pipeline.unet.get_submodule(TO_K))
    del tensors[f"{FLAT_TO_K}.lora_up.weight"]
    folder.add("half", tensors)
    with pytest.raises(RenderFailed, match=r"is incomplete: .*attn2_to_k lacks its 'up'"):
        loras.apply([use("half")])


def test_the_tests_own_lora_draws_as_merged_weights_do(
    pipeline: Any, folder: Folder, loras: Loras
) -> None:
    """alpha / rank * weight, in the UNet and in the text encoder."""
    tensors = kohya_lora(pipeline.unet, pipeline.text_encoder, seed=3, alpha=2.0)
    folder.add("it", tensors)
    loras.apply([use("it", 0.7)])
    styled = draw(pipeline)
    loras.apply([])
    plain = draw(pipeline)
    prefixes = (("lora_unet_", pipeline.unet), ("lora_te_text_model_", pipeline.text_encoder))
    for prefix, model in prefixes:
        for name, module in model.named_modules():
            flat = prefix + name.replace(".", "_")
            if f"{flat}.alpha" in tensors:
                down, up = (tensors[f"{flat}.lora_{half}.weight"] for half in ("down", "up"))
                change = (up.flatten(1) @ down.flatten(1)).reshape(module.weight.shape)
                module.weight.data += 0.7 * 2.0 / RANK * change
    assert apart(styled, draw(pipeline)) <= 1
    assert apart(styled, plain) > 3


# Pictures of tiny folders: the pipelines and the layers that are adapted in each.
FLOWS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Z-Image-Turbo": (_D.ZImagePipeline, {"guidance_scale": 0.0}),
    "FLUX.1-dev": (_D.FluxPipeline, {"max_sequence_length": 64}),
    "FLUX.2-klein": (_D.Flux2KleinPipeline, {}),
    "Qwen-Image": (_D.QwenImagePipeline, {"true_cfg_scale": 1.0}),
    "Krea-2-Turbo": (_D.Krea2Pipeline, {"guidance_scale": 0.0}),
    "ERNIE-Image-Turbo": (_D.ErnieImagePipeline, {"guidance_scale": 1.0, "use_pe": False}),
    "Ovis-Image-7B": (_D.OvisImagePipeline, {}),
    "sd3.5-medium": (_D.StableDiffusion3Pipeline, {"max_sequence_length": 64}),
    "Chroma1-HD": (_D.ChromaPipeline, {"max_sequence_length": 64}),
    "Lumina-Image-2.0": (_D.Lumina2Pipeline, {}),
    "AuraFlow": (_D.AuraFlowPipeline, {}),
    "Sana": (_D.SanaPipeline, {"use_resolution_binning": False}),
    "PixArt-Sigma": (_D.PixArtSigmaPipeline, {"use_resolution_binning": False}),
    "CogView4": (_D.CogView4Pipeline, {}),
}


def flow(name: str) -> tuple[Any, dict[str, Any]]:
    kind, values = FLOWS[name]
    return quiet(kind, tiny_flow(name)), values


def merged(model: Any, marks: tuple[str, ...], names: tuple[str, str], weight: float) -> Tensors:
    """A LoRA of the linear layers with one of these in their names, and merged into them."""
    tensors: Tensors = {}
    for number, (name, module) in enumerate(model.named_modules()):
        if isinstance(module, nn.Linear) and any(mark in name for mark in marks):
            down, up = random_layer(module, number, size=1)
            for template, half in zip(names, (down, up), strict=True):
                tensors[template.format(name=name, flat=name.replace(".", "_"))] = half
            module.weight.data += weight * up @ down
    return tensors


@pytest.mark.parametrize(
    "name", one_of_each_kind(FLOWS, ("Z-Image-Turbo", "FLUX.1-dev", "PixArt-Sigma"))
)
def test_a_lora_gives_the_picture_of_merged_weights(folder: Folder, name: str) -> None:
    """For every family; afterwards every weight is what it was, bit for bit."""
    pipeline, values = flow(name)
    plain, before = draw(pipeline, **values), weights(pipeline)
    changed, _ = flow(name)
    marks = ("attn", "attention.", "ff.", "feed_forward", "mlp.")
    names = ("transformer.{name}.lora_A.weight", "transformer.{name}.lora_B.weight")
    folder.add("style", merged(changed.transformer, marks, names, 0.7))
    loras = Loras(pipeline, folder.find)
    assert not loras.apply([use("style", 0.7)])
    styled = draw(pipeline, **values)
    assert loras.warnings == ()
    assert apart(styled, draw(changed, **values)) <= 1 < apart(styled, plain)
    loras.apply([])
    after = weights(pipeline)
    assert all(torch.equal(before[key], after[key]) for key in before.keys() | after.keys())
    assert np.array_equal(draw(pipeline, **values), plain)


@pytest.mark.parametrize("prefix", ["lora_te3_", "lora_te2_"], ids=["kohya", "OneTrainer"])
def test_both_text_encoders_of_flux_take_a_lora(folder: Folder, prefix: str) -> None:
    """T5 is kohya's third text encoder there, OneTrainer's second."""
    (pipeline, values), (changed, _) = flow("FLUX.1-dev"), flow("FLUX.1-dev")
    plain = draw(pipeline, **values)
    marks = ("self_attn.", "mlp.", "Attention.", "ReluDense.")
    tensors: Tensors = {}
    for start, model in (("lora_te1_", changed.text_encoder), (prefix, changed.text_encoder_2)):
        halves = (f"{start}{{flat}}.lora_down.weight", f"{start}{{flat}}.lora_up.weight")
        tensors |= merged(model, marks, halves, 0.7)
    folder.add("words", tensors)
    loras = Loras(pipeline, folder.find)
    assert loras.apply([use("words", 0.7)])
    styled = draw(pipeline, **values)
    assert loras.warnings == ()
    assert apart(styled, draw(changed, **values)) <= 1 < apart(styled, plain)


@pytest.mark.parametrize("first", ["the offloading", "the LoRA"])
@pytest.mark.parametrize("kind", ["model", "group"])
def test_a_lora_acts_on_models_that_are_moved_to_compute(
    pipeline: Any, folder: Folder, loras: Loras, kind: str, first: str
) -> None:
    """By accelerate's hooks or diffusers' groups, whichever was there first."""
    style(folder, pipeline, "a", 1)
    plain = draw(pipeline)
    loras.apply([use("a", 0.7)])
    styled = draw(pipeline)
    if first == "the offloading":
        loras.apply([])
    _offload(pipeline, kind)
    loras.apply([use("a", 0.7)])
    assert np.array_equal(draw(pipeline), styled)
    for model in (pipeline.unet, pipeline.text_encoder) if kind == "group" else ():
        halves = [one for name, one in model.named_modules() if name.endswith("lora_A.a")]
        # Else its weights would not move with the layer's; diffusers has no public name for this.
        assert halves and all(_is_in_a_group(half) for half in halves)
    loras.apply([])
    assert np.array_equal(draw(pipeline), plain)


def _offload(pipeline: Any, kind: str) -> None:
    cpu = torch.device("cpu")
    if kind == "group":
        pipeline.enable_group_offload(cpu, cpu, offload_type="leaf_level")
        return
    hook = None
    for model in (pipeline.text_encoder, pipeline.unet, pipeline.vae):
        _, hook = cpu_offload_with_hook(model, cpu, prev_module_hook=hook)


def _is_in_a_group(module: Any) -> bool:
    return "group_offloading" in getattr(module, "_diffusers_hook").hooks  # noqa: B009


class Half(nn.Module):
    """One layer, as a denoiser."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.to_q = layer
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.to_q(x)
        return result


class Pipeline:
    def __init__(self, transformer: nn.Module) -> None:
        self.transformer = transformer


@pytest.fixture
def halves(folder: Folder) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """A LoRA from 64 to 32 values."""
    generator = torch.Generator().manual_seed(1)
    down, up = (torch.randn(*shape, generator=generator) for shape in ((RANK, 64), (32, RANK)))
    folder.add("it", {"to_q.lora_A.weight": down, "to_q.lora_B.weight": up})
    yield down, up


def added(folder: Folder, model: Half, x: torch.Tensor) -> torch.Tensor:
    """What the LoRA adds to the layer's output."""
    loras = Loras(Pipeline(model), folder.find)
    before: torch.Tensor = model(x)
    loras.apply([use("it")])
    after: torch.Tensor = model(x)
    assert after.dtype == before.dtype == x.dtype
    loras.apply([])
    assert torch.equal(model(x), before)
    return (after - before).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kept", [None, torch.float8_e4m3fn], ids=["plain", "fp8"])
def test_a_lora_computes_in_the_models_type(
    folder: Folder,
    halves: tuple[torch.Tensor, torch.Tensor],
    dtype: torch.dtype,
    kept: torch.dtype | None,
) -> None:
    """Weights kept as fp8 are converted for each computation."""
    down, up = halves
    model = Half(nn.Linear(64, 32).to(dtype).requires_grad_(requires_grad=False), dtype)
    if kept:
        apply_layerwise_casting(model, kept, dtype, skip_modules_pattern=())
        assert model.to_q.weight.dtype == kept
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(2)).to(dtype)
    tolerance = 0.001 if dtype == torch.float32 else 0.03
    expected = x.float() @ down.T @ up.T
    torch.testing.assert_close(
        added(folder, model, x), expected, rtol=tolerance, atol=tolerance * 30
    )


def test_a_lora_acts_on_quantised_weights(
    folder: Folder, halves: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """A GGUF layer's weight has the shape of its bytes: 34 for 32 numbers in Q8_0."""
    down, up = halves
    numbers = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    packed = torch.from_numpy(quants.quantize(numbers.numpy(), GGMLQuantizationType.Q8_0))
    layer = GGUFLinear(64, 32, bias=False, compute_dtype=torch.float32)
    parameter: Any = GGUFParameter
    layer.weight = parameter(packed, quant_type=GGMLQuantizationType.Q8_0)
    assert layer.weight.shape == (32, 68)
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(2))
    expected = x @ down.T @ up.T
    torch.testing.assert_close(added(folder, Half(layer), x), expected, rtol=1e-3, atol=1e-3)
