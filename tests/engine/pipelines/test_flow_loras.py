"""LoRAs of flow families: whatever names a file has, they add what merged weights would."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from diffusers.hooks.layerwise_casting import apply_layerwise_casting
from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter
from gguf import GGMLQuantizationType, quants
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from picowatch.catalog import Catalog
from picowatch.catalog.lora_keys import misfits
from picowatch.catalog.lora_layers import LayerId, has_layer
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.engine.unet.changes import Change, Decomposed, LowRank
from picowatch.engine.unet.lora_files import LoraReader
from picowatch.engine.unet.loras import Loras, modules_by_layer
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest, LoraUse
from tests.engine.adapters import RANK, Tensors, random_layer, write
from tests.engine.pipelines.test_flows import CASES, requests_of
from tests.engine.pipelines.tiny_flows import tiny_flow
from tests.engine.requests import difference, ignore_steps, pixels
from tests.kinds import one_of_each_kind

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
    # Chroma's transformer in diffusers 0.42 itself.
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]
_D: Any = diffusers
CPU = torch.device("cpu")
ALPHA = 1.0

# One block of each transformer in full width, without weights.
TRANSFORMERS: dict[str, Callable[[], Any]] = {
    "flux": lambda: _D.FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=1),
    "z_image": lambda: _D.ZImageTransformer2DModel(n_layers=1, n_refiner_layers=1),
    "flux2": lambda: _D.Flux2Transformer2DModel(num_layers=1, num_single_layers=1),
    "qwen_image": lambda: _D.QwenImageTransformer2DModel(num_layers=1),
    "sd3": lambda: _D.SD3Transformer2DModel(num_layers=2, dual_attention_layers=(0,)),
    "chroma": lambda: _D.ChromaTransformer2DModel(num_layers=1, num_single_layers=1),
    "lumina2": lambda: _D.Lumina2Transformer2DModel(num_layers=1, num_refiner_layers=1),
    "krea2": lambda: _D.Krea2Transformer2DModel(num_layers=1),
    "ernie_image": lambda: _D.ErnieImageTransformer2DModel(num_layers=1),
}


def modules_of(family: str) -> dict[LayerId, nn.Module]:
    """The layers of a family's transformer."""
    with init_empty_weights():
        return modules_by_layer(TRANSFORMERS[family]())


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_every_layer_of_a_transformer_is_known(family: str) -> None:
    """Or else `picowatch models` would say of good files that they do nothing."""
    assert [layer for layer in modules_of(family) if not has_layer(family, layer)] == []
    flat = [f"lora_unet_{layer.module}.lora_down.weight" for layer in modules_of(family)]
    assert misfits(flat, family) == ""
    assert misfits(["lora_unet_nothing.lora_down.weight"], family).startswith("does nothing: ")


# Layers as the models' authors name them: their outputs and inputs.
FLUX = {
    "double_blocks.0.img_attn.qkv": (9216, 3072),
    "double_blocks.0.img_attn.proj": (3072, 3072),
    "double_blocks.0.img_mlp.0": (12288, 3072),
    "double_blocks.0.img_mlp.2": (3072, 12288),
    "double_blocks.0.img_mod.lin": (18432, 3072),
    "double_blocks.0.txt_attn.qkv": (9216, 3072),
    "double_blocks.0.txt_attn.proj": (3072, 3072),
    "double_blocks.0.txt_mlp.0": (12288, 3072),
    "double_blocks.0.txt_mlp.2": (3072, 12288),
    "double_blocks.0.txt_mod.lin": (18432, 3072),
    "single_blocks.0.linear1": (21504, 3072),
    "single_blocks.0.linear2": (3072, 15360),
    "single_blocks.0.modulation.lin": (9216, 3072),
    "img_in": (3072, 64),
    "txt_in": (3072, 4096),
    "time_in.in_layer": (3072, 256),
    "time_in.out_layer": (3072, 3072),
    "guidance_in.in_layer": (3072, 256),
    "vector_in.out_layer": (3072, 3072),
}
_FINAL = {"final_layer.linear": (64, 3072), "final_layer.adaLN_modulation.1": (6144, 3072)}
Z_IMAGE = {
    f"{stack}.0.{layer}": sides
    for stack in ("layers", "noise_refiner", "context_refiner")
    for layer, sides in {
        "attention.qkv": (11520, 3840),
        "attention.out": (3840, 3840),
        "feed_forward.w1": (10240, 3840),
        "feed_forward.w2": (3840, 10240),
    }.items()
}
FLUX2 = {
    "double_blocks.0.img_attn.qkv": (18432, 6144),
    "double_blocks.0.img_attn.proj": (6144, 6144),
    "double_blocks.0.img_mlp.0": (36864, 6144),
    "double_blocks.0.txt_attn.qkv": (18432, 6144),
    "double_blocks.0.txt_mlp.2": (6144, 18432),
    "single_blocks.0.linear1": (55296, 6144),
    "single_blocks.0.linear2": (6144, 24576),
    "img_in": (6144, 128),
    "time_in.in_layer": (6144, 256),
}
QWEN_IMAGE = {
    "transformer_blocks.0.attn.to_q": (3072, 3072),
    "transformer_blocks.0.attn.add_k_proj": (3072, 3072),
    "transformer_blocks.0.attn.to_out.0": (3072, 3072),
    "transformer_blocks.0.img_mlp.net.0.proj": (12288, 3072),
    "transformer_blocks.0.txt_mod.1": (18432, 3072),
    "img_in": (3072, 64),
}
LUMINA2 = {
    f"{stack}.0.{layer}": sides
    for stack in ("layers", "noise_refiner", "context_refiner")
    for layer, sides in {
        "attention.qkv": (3840, 2304),
        "attention.out": (2304, 2304),
        "feed_forward.w1": (9216, 2304),
        "feed_forward.w2": (2304, 9216),
        "feed_forward.w3": (9216, 2304),
        "adaLN_modulation.1": (9216, 1024),
    }.items()
    if layer != "adaLN_modulation.1" or stack != "context_refiner"
}
KREA2 = {
    "blocks.0.attn.wq": (6144, 6144),
    "blocks.0.attn.wk": (1536, 6144),
    "blocks.0.attn.wo": (6144, 6144),
    "blocks.0.attn.gate": (6144, 6144),
    "blocks.0.mlp.down": (6144, 16384),
    "txtfusion.refiner_blocks.0.attn.wv": (2560, 2560),
    "first": (6144, 64),
    "last.linear": (64, 6144),
    "tmlp.2": (6144, 6144),
    "txtmlp.1": (6144, 2560),
}
KOHYA = ("lora_unet_{flat}.lora_down.weight", "lora_unet_{flat}.lora_up.weight")
COMFYUI = ("diffusion_model.{name}.lora_A.weight", "diffusion_model.{name}.lora_B.weight")


def named(
    layers: dict[str, tuple[int, int]], names: tuple[str, str], *, alpha: bool = True
) -> Tensors:
    """A file's tensors for these layers, the same whatever their names."""
    tensors: Tensors = {}
    for number, (name, (outputs, inputs)) in enumerate(layers.items()):
        generator = torch.Generator().manual_seed(number)
        flat = {"name": name, "flat": name.replace(".", "_")}
        down, up = (template.format(**flat) for template in names)
        tensors[down] = torch.randn(RANK, inputs, generator=generator)
        tensors[up] = torch.randn(outputs, RANK, generator=generator)
        if alpha:
            tensors[f"{down.partition('.lora')[0]}.alpha"] = torch.tensor(ALPHA)
    return tensors


def ours(path: Path, family: str) -> dict[str, torch.Tensor]:
    """Part of what each layer gets added, by its flat name; every tensor of the file is used."""
    read = LoraReader("it", family, modules_of(family), CPU).read(path)
    assert read.unexpected == ()
    return {layer.module: _sample(_scaled(one)) for layer, one in read.layers.items()}


def _scaled(layer: Change) -> tuple[torch.Tensor, torch.Tensor]:
    assert isinstance(layer, LowRank)
    return layer.down * layer.scale, layer.up


def _sample(halves: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Every row of the product with the first inputs; all of it would take gigabytes."""
    down, up = halves
    return up @ down[:, :8]


def theirs(kind: Any, path: Path) -> dict[str, torch.Tensor]:
    """The same as diffusers converts the file."""
    state = kind.lora_state_dict(path, local_files_only=True, use_safetensors=True)
    ending = ".lora_A.weight"
    return {
        key.removeprefix("transformer.").removesuffix(ending).replace(".", "_"): _sample(
            (tensor, state[key.replace("lora_A", "lora_B")])
        )
        for key, tensor in state.items()
        if key.endswith(ending)
    }


@pytest.mark.parametrize(
    ("family", "kind", "layers", "names", "alpha"),
    [
        ("flux", _D.FluxPipeline, FLUX, KOHYA, True),
        ("z_image", _D.ZImagePipeline, Z_IMAGE, KOHYA, True),
        ("flux2", _D.Flux2KleinPipeline, FLUX2, KOHYA, True),
        ("flux2", _D.Flux2KleinPipeline, FLUX2, COMFYUI, False),
        ("qwen_image", _D.QwenImagePipeline, QWEN_IMAGE, KOHYA, True),
        ("qwen_image", _D.QwenImagePipeline, QWEN_IMAGE, COMFYUI, True),
        ("lumina2", _D.Lumina2Pipeline, LUMINA2, COMFYUI, False),
        ("krea2", _D.Krea2Pipeline, KREA2, COMFYUI, False),
    ],
)
def test_the_authors_names_mean_what_diffusers_makes_of_them(
    tmp_path: Path,
    family: str,
    kind: Any,
    layers: dict[str, tuple[int, int]],
    names: tuple[str, str],
    *,
    alpha: bool,
) -> None:
    """A layer that diffusers has in parts is taken apart."""
    path = write(tmp_path / "it.safetensors", named(layers, names, alpha=alpha))
    found, expected = ours(path, family), theirs(kind, path)
    assert found.keys() == expected.keys()
    for layer, delta in expected.items():
        torch.testing.assert_close(found[layer], delta, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "names",
    [
        ("diffusion_model.{name}.lora_down.weight", "diffusion_model.{name}.lora_up.weight"),
        COMFYUI,
        ("base_model.model.{name}.lora_A.weight", "base_model.model.{name}.lora_B.weight"),
        ("{name}.lora_A.weight", "{name}.lora_B.weight"),
        ("{name}.lora_A.default.weight", "{name}.lora_B.default.weight"),
        ("diffusion_model.{name}.lora.down.weight", "diffusion_model.{name}.lora.up.weight"),
    ],
)
def test_every_format_adds_the_same(tmp_path: Path, names: tuple[str, str]) -> None:
    """ComfyUI's, fal's and ai-toolkit's for FLUX.1 are kohya's with other prefixes and endings."""
    kohya = ours(write(tmp_path / "kohya.safetensors", named(FLUX, KOHYA)), "flux")
    tensors = named(FLUX, names)
    other = ours(write(tmp_path / "other.safetensors", tensors), "flux")
    assert all(torch.equal(kohya[layer], other[layer]) for layer in kohya.keys() | other.keys())


@pytest.mark.parametrize(
    "names",
    [
        ("transformer.{name}.lora_A.weight", "transformer.{name}.lora_B.weight"),
        ("transformer.{name}.lora_down.weight", "transformer.{name}.lora_up.weight"),
        ("lora_transformer_{flat}.lora_down.weight", "lora_transformer_{flat}.lora_up.weight"),
        KOHYA,
        COMFYUI,
    ],
)
@pytest.mark.parametrize("family", TRANSFORMERS)
def test_diffusers_own_names_are_understood(
    tmp_path: Path, family: str, names: tuple[str, str]
) -> None:
    """With dots or underscores, and every prefix in use."""
    with init_empty_weights():
        layers = {
            name: (module.out_features, module.in_features)
            for name, module in TRANSFORMERS[family]().named_modules()
            if isinstance(module, nn.Linear)
        }
    path = write(tmp_path / "it.safetensors", named(layers, names))
    assert ours(path, family).keys() == {name.replace(".", "_") for name in layers}


def test_xlabs_names_are_understood(tmp_path: Path) -> None:
    """1 is the image's, 2 the text's."""
    layers = {
        "double_blocks.0.processor.qkv_lora1": (9216, 3072),
        "double_blocks.0.processor.qkv_lora2": (9216, 3072),
        "double_blocks.0.processor.proj_lora1": (3072, 3072),
        "double_blocks.0.processor.proj_lora2": (3072, 3072),
        "single_blocks.0.processor.qkv_lora": (9216, 3072),
        "single_blocks.0.processor.proj_lora": (3072, 15360),
    }
    tensors = named(layers, ("{name}.down.weight", "{name}.up.weight"), alpha=False)
    path = write(tmp_path / "it.safetensors", tensors)
    found, expected = ours(path, "flux"), theirs(_D.FluxPipeline, path)
    assert found.keys() == expected.keys()
    for layer, delta in expected.items():
        torch.testing.assert_close(found[layer], delta)


def test_the_last_modulation_has_its_halves_in_diffusers_order(tmp_path: Path) -> None:
    """As diffusers converts the weights themselves (swap_scale_shift)."""
    tensors = named(_FINAL, KOHYA, alpha=False)
    found = ours(write(tmp_path / "it.safetensors", tensors), "flux")
    name = "lora_unet_final_layer_adaLN_modulation_1"
    shift, scale = tensors[f"{name}.lora_up.weight"].chunk(2)
    down = tensors[f"{name}.lora_down.weight"]
    assert torch.equal(found["norm_out_linear"], _sample((down, torch.cat([scale, shift]))))
    assert found.keys() == {"norm_out_linear", "proj_out"}


def test_the_texts_modulation_of_stable_diffusion_3_is_adapted(tmp_path: Path) -> None:
    """kohya trains it: in the last block it has but shift and scale, which trade places."""
    width = 1152
    name = "joint_blocks.{}.context_block.adaLN_modulation.1"
    layers = {name.format(0): (6 * width, width), name.format(1): (2 * width, width)}
    tensors = named(layers, KOHYA, alpha=False)
    found = ours(write(tmp_path / "it.safetensors", tensors), "sd3")
    for index in (0, 1):
        key = f"lora_unet_{name.format(index).replace('.', '_')}"
        down, up = tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"]
        up = torch.cat(up.chunk(2)[::-1]) if index else up
        assert torch.equal(
            found[f"transformer_blocks_{index}_norm1_context_linear"], _sample((down, up))
        )
    theirs_last = {"transformer_blocks.1.norm1_context.linear": (2 * width, width)}
    down, up = named(theirs_last, COMFYUI, alpha=False).values()
    halves = {
        f"transformer.{next(iter(theirs_last))}.lora_{one}.weight": tensor
        for one, tensor in (("A", down), ("B", up))
    }
    found = ours(write(tmp_path / "it.safetensors", halves), "sd3")
    assert torch.equal(found["transformer_blocks_1_norm1_context_linear"], _sample((down, up)))


def test_diffusers_metadata_says_the_scale(tmp_path: Path) -> None:
    """peft's settings, which diffusers keeps under the name of the part."""
    tensors = named({"layers.0.attention.to_q": (3840, 3840)}, COMFYUI, alpha=False)
    settings = {
        "lora_adapter_metadata": f'{{"transformer.r": {RANK}, "transformer.lora_alpha": 8}}'
    }
    path = write(tmp_path / "it.safetensors", tensors, settings)
    read = LoraReader("it", "z_image", modules_of("z_image"), CPU).read(path)
    assert [layer.scale for layer in read.layers.values()] == [8 / RANK]


def test_a_product_for_a_fused_layer_is_taken_apart(tmp_path: Path) -> None:
    """LoKr of FLUX.1: the rows of queries, keys, values; the last modulation's halves trade."""
    tensors: Tensors = {}
    for layer, rows in (
        ("single_blocks_0_linear1", 21504),
        ("final_layer_adaLN_modulation_1", 6144),
    ):
        tensors[f"lora_unet_{layer}.lokr_w1"] = torch.randn(16, 16)
        tensors[f"lora_unet_{layer}.lokr_w2"] = torch.randn(rows // 16, 3072 // 16)
    path = write(tmp_path / "it.safetensors", tensors)
    modules = modules_of("flux")
    read = LoraReader("it", "flux", modules, CPU).read(path)
    assert read.unexpected == ()
    found = {
        layer.module: one.change_of(torch.as_tensor(modules[layer].weight))
        for layer, one in read.layers.items()
    }
    first, last = (
        torch.kron(tensors[f"lora_unet_{layer}.lokr_w1"], tensors[f"lora_unet_{layer}.lokr_w2"])
        for layer in ("single_blocks_0_linear1", "final_layer_adaLN_modulation_1")
    )
    parts = ("attn_to_q", "attn_to_k", "attn_to_v", "proj_mlp")
    together = torch.cat([found[f"single_transformer_blocks_0_{part}"] for part in parts])
    assert torch.equal(together, first)
    assert torch.equal(found["norm_out_linear"], torch.cat(last.chunk(2)[::-1]))
    assert len(found) == 5


def test_the_parts_of_a_layer_win_over_the_whole(tmp_path: Path) -> None:
    """Some files have both, and mean the same."""
    whole = named({"layers.0.attention.qkv": (11520, 3840)}, COMFYUI)
    part = named({"layers.0.attention.to_q": (3840, 3840)}, COMFYUI)
    for tensors in (whole | part, part | whole):
        found = ours(write(tmp_path / "it.safetensors", tensors), "z_image")
        alone = ours(write(tmp_path / "part.safetensors", part), "z_image")
        assert torch.equal(found["layers_0_attention_to_q"], alone["layers_0_attention_to_q"])
        assert len(found) == 3


def test_a_fused_layer_of_another_size_is_refused(tmp_path: Path) -> None:
    """Its rows could not be shared out."""
    tensors = named({"layers.0.attention.qkv": (9216, 3840)}, COMFYUI)
    with pytest.raises(RenderFailed) as failed:
        ours(write(tmp_path / "it.safetensors", tensors), "z_image")
    assert failed.value.message == (
        "The LoRA 'it' is for a model of another size: its layers_0_attention_to_q and its "
        "neighbours have 9216 outputs, this checkpoint's 11520."
    )


def test_a_lora_for_another_family_is_refused(tmp_path: Path) -> None:
    """If nothing in the file told it before."""
    tensors = named({"double_blocks.0.img_attn.qkv": (9216, 3072)}, KOHYA)
    with pytest.raises(RenderFailed, match="is for another kind of model"):
        ours(write(tmp_path / "it.safetensors", tensors), "z_image")


# From here on, pictures of tiny folders, each with the word by which its LoRAs are known: nothing
# tells toy widths.
PICTURES = {
    "Z-Image-Turbo": "z-image",
    "FLUX.1-dev": "flux-1-dev",
    "FLUX.2-klein": "flux2",
    "Qwen-Image": "qwen-image",
    "Krea-2-Turbo": "krea-2",
    "ERNIE-Image-Turbo": "ernie-image",
    "sd3.5-medium": "sd3",
    "Chroma1-HD": "chroma",
    "Lumina-Image-2.0": "lumina2",
    "AuraFlow": "auraflow",
    "Sana": "sana",
    "CogView4": "cogview4",
}
# Layers that the authors' names split, join, and leave as they are.
FAMILIES_IN_EACH_RUN = ("Z-Image-Turbo", "FLUX.1-dev", "sd3.5-medium", "Lumina-Image-2.0")


@pytest.fixture
def name() -> str:
    """The checkpoint, for tests that name no other."""
    return "Z-Image-Turbo"


@pytest.fixture
def models(tmp_path: Path, name: str) -> Path:
    """A models folder with one of the tiny folders of PICTURES."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / name).symlink_to(tiny_flow(name))
    return tmp_path


@pytest.fixture
def engine(models: Path) -> Renderer:
    return Renderer(EngineOptions(models=models, device="cpu", precision="float32", threads=1))


def plain_pipeline(name: str) -> Any:
    pipeline = CASES[name].from_text.from_pretrained(
        tiny_flow(name), dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def linear(model: Any, *marks: str) -> dict[str, nn.Linear]:
    """The layers that trainers adapt: those of attention and feed-forward blocks."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(mark in name for mark in marks)
    }


def style(models: Path, name: str, pipeline: Any) -> None:
    """A LoRA of the transformer, and merged by hand into the pipeline's weights with 0.7."""
    tensors: Tensors = {}
    layers = linear(pipeline.transformer, "attn", "attention.", "ff.", "feed_forward", "mlp.")
    for number, (layer, module) in enumerate(layers.items()):
        down, up = random_layer(module, number, size=1)
        tensors[f"transformer.{layer}.lora_A.weight"] = down
        tensors[f"transformer.{layer}.lora_B.weight"] = up
        module.weight.data += 0.7 * up @ down
    said = {"modelspec.architecture": f"{PICTURES[name]}/lora"}
    write(models / "loras/style.safetensors", tensors, said)


def text_style(models: Path, pipeline: Any) -> None:
    """kohya's, of both text encoders of FLUX.1, merged by hand with 0.7."""
    tensors: Tensors = {}
    for prefix, model in (
        ("lora_te1_", pipeline.text_encoder),
        ("lora_te3_", pipeline.text_encoder_2),
    ):
        for number, (layer, module) in enumerate(
            linear(model, "self_attn.", "mlp.", "Attention.", "ReluDense.").items()
        ):
            down, up = random_layer(module, number)
            flat = prefix + layer.replace(".", "_")
            tensors[f"{flat}.lora_down.weight"] = down
            tensors[f"{flat}.lora_up.weight"] = up
            tensors[f"{flat}.alpha"] = torch.tensor(float(RANK))
            module.weight.data += 0.7 * up @ down
    said = {"ss_base_model_version": "flux1"}
    write(models / "loras/style.safetensors", tensors, said)


def merged_picture(name: str, pipeline: Any) -> Any:
    image = pipeline(
        prompt="a red cube",
        num_inference_steps=2,
        width=64,
        height=64,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="np",
        **CASES[name].both,
        **CASES[name].plain,
    ).images[0]
    return (image * 255).round()


def drawn(engine: Renderer, models: Path, name: str, text: str = "") -> RenderedImage:
    (wanted,) = requests_of(models, name, f"prompt: a red cube\n{text}")
    (image,) = engine.render([wanted], ignore_steps)
    return image


def weights(engine: Renderer, wanted: ImageRequest) -> dict[str, torch.Tensor]:
    """Copies of all weights of the checkpoint in memory."""
    loaded = engine._checkpoints.held(wanted)
    return {
        f"{index}.{name}": tensor.clone()
        for index, model in enumerate(loaded.models)
        for name, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize("name", one_of_each_kind(PICTURES, FAMILIES_IN_EACH_RUN))
def test_a_lora_gives_the_picture_of_merged_weights(
    models: Path, engine: Renderer, name: str
) -> None:
    """And afterwards every weight is what it was, bit for bit, and so is the picture."""
    before = drawn(engine, models, name)
    (plain,) = requests_of(models, name, "prompt: a red cube")
    kept = weights(engine, plain)
    pipeline = plain_pipeline(name)
    style(models, name, pipeline)
    styled = drawn(engine, models, name, "loras: {style: 0.7}")
    assert styled.warnings == ()
    assert abs(pixels(styled) - merged_picture(name, pipeline)).max() <= 1
    assert difference(before, styled) > 1
    after = weights(engine, plain)
    assert all(torch.equal(kept[key], after[key]) for key in kept.keys() | after.keys())
    assert drawn(engine, models, name).pixels == before.pixels


@pytest.mark.parametrize(
    "prompt",
    ["a red cube <lora:style:0.7>", "<lora:style:0.7> a red cube", "a <lora:style:0.7> red cube"],
)
def test_a_tag_in_the_prompt_leaves_no_space_behind(
    models: Path, engine: Renderer, prompt: str
) -> None:
    """Qwen3 and T5 would read it: the picture is that of the LoRA beside the prompt."""
    style(models, "Z-Image-Turbo", plain_pipeline("Z-Image-Turbo"))
    beside = drawn(engine, models, "Z-Image-Turbo", "loras: {style: 0.7}")
    (wanted,) = requests_of(models, "Z-Image-Turbo", f"prompt: {prompt}")
    (image,) = engine.render([wanted], ignore_steps)
    assert image.pixels == beside.pixels


@pytest.mark.parametrize("name", ["FLUX.1-dev"])
def test_prompts_are_encoded_again_only_if_a_lora_changes_their_encoding(
    models: Path, engine: Renderer, name: str
) -> None:
    """T5 takes longer than some steps, and most LoRAs only adapt the transformer."""
    style(models, name, plain_pipeline(name))
    drawn(engine, models, name)
    (wanted,) = requests_of(models, name, "prompt: a red cube\nloras: {style: 0.7}")
    prompts = engine._checkpoints.held(wanted)._prompts
    kept = list(prompts.values())
    engine.render([wanted], ignore_steps)
    assert [id(one) for one in prompts.values()] == [id(one) for one in kept]
    text_style(models, plain_pipeline(name))
    drawn(engine, models, name, "loras: {style: 0.7}")
    assert [id(one) for one in prompts.values()] != [id(one) for one in kept]


@pytest.mark.parametrize("name", ["FLUX.1-dev"])
def test_both_text_encoders_of_flux_take_a_lora(models: Path, engine: Renderer, name: str) -> None:
    """T5 is kohya's third text encoder there."""
    pipeline = plain_pipeline(name)
    before = drawn(engine, models, name)
    text_style(models, pipeline)
    styled = drawn(engine, models, name, "loras: {style: 0.7}")
    assert styled.warnings == ()
    assert abs(pixels(styled) - merged_picture(name, pipeline)).max() <= 1
    assert difference(before, styled) > 1


def test_what_of_a_lora_does_nothing_is_said(models: Path, engine: Renderer) -> None:
    """The rest acts."""
    pipeline = plain_pipeline("Z-Image-Turbo")
    style(models, "Z-Image-Turbo", pipeline)
    path = models / "loras/style.safetensors"
    more = {"transformer.layers.9.attention.to_q.lora_A.weight": torch.zeros(RANK, 32)}
    write(path, load_file(path) | more, {"modelspec.architecture": "z-image/lora"})
    styled = drawn(engine, models, "Z-Image-Turbo", "loras: {style: 0.7}")
    assert styled.warnings == (
        "The LoRA 'style' has parts that do nothing with this checkpoint: "
        "transformer.layers.9.attention.to_q.lora_A.weight.",
    )
    assert abs(pixels(styled) - merged_picture("Z-Image-Turbo", pipeline)).max() <= 1


def test_the_catalog_knows_a_flow_familys_lora(models: Path) -> None:
    """And a recipe with a checkpoint of another family is refused."""
    style(models, "Z-Image-Turbo", plain_pipeline("Z-Image-Turbo"))
    assert Catalog(models).inventory().lora_families == {"style": "Z-Image"}


class Half(nn.Module):
    """One layer, as a part of a transformer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.to_q = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.to_q(x)
        return result


def lora_and_input(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both halves, and three positions that go into the layer."""
    generator = torch.Generator().manual_seed(1)
    down, up, x = (
        torch.randn(*shape, generator=generator) for shape in ((RANK, 64), (32, RANK), (3, 64))
    )
    return down, up, x.to(dtype)


def added(
    model: nn.Module, tmp_path: Path, dtype: torch.dtype, more: Tensors | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a LoRA with weight 1 adds to the layer's output, and what its product would."""
    down, up, x = lora_and_input(dtype)
    halves = {"to_q.lora_A.weight": down, "to_q.lora_B.weight": up}
    path = write(tmp_path / "it.safetensors", halves | (more or {}))
    loras = Loras("", model, (), lambda *_: path, CPU)
    before = model(x)
    loras.apply([LoraUse("it", "1", 1.0)])
    after = model(x)
    assert after.dtype == before.dtype
    loras.apply([])
    assert torch.equal(model(x), before)
    return (after - before).float(), (x.float() @ down.T @ up.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_lora_acts_on_weights_that_are_kept_as_fp8(tmp_path: Path, dtype: torch.dtype) -> None:
    """They are converted for each computation; the LoRA computes in the type of that."""
    model = Half(nn.Linear(64, 32)).to(dtype).requires_grad_(requires_grad=False)
    apply_layerwise_casting(
        model, storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype, skip_modules_pattern=()
    )
    assert model.to_q.weight.dtype == torch.float8_e4m3fn
    found, expected = added(model, tmp_path, dtype)
    tolerance = 0.001 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * 30)


def test_a_lora_acts_on_quantised_weights(tmp_path: Path) -> None:
    """A GGUF layer's weight has the shape of its bytes: 34 for 32 numbers in Q8_0."""
    numbers = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    packed = quants.quantize(numbers.numpy(), GGMLQuantizationType.Q8_0)
    layer = GGUFLinear(64, 32, bias=False, compute_dtype=torch.float32)
    parameter: Any = GGUFParameter
    layer.weight = parameter(torch.from_numpy(packed), quant_type=GGMLQuantizationType.Q8_0)
    assert layer.weight.shape == (32, 68)
    found, expected = added(Half(layer), tmp_path, torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_dora_acts_on_quantised_weights(tmp_path: Path) -> None:
    """Its lengths are measured over the numbers that the bytes stand for, which have 16 bits."""
    numbers = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    packed = quants.quantize(numbers.numpy(), GGMLQuantizationType.Q8_0)
    weight = torch.from_numpy(quants.dequantize(packed, GGMLQuantizationType.Q8_0))
    layer = GGUFLinear(64, 32, bias=False, compute_dtype=torch.float32)
    parameter: Any = GGUFParameter
    layer.weight = parameter(torch.from_numpy(packed), quant_type=GGMLQuantizationType.Q8_0)
    lengths = {"to_q.lora_magnitude_vector": torch.full((32,), 3.0)}
    down, up, x = lora_and_input(torch.float32)
    found, _ = added(Half(layer), tmp_path, torch.float32, lengths)
    changed = functional.normalize(weight + up @ down, dim=1) * 3
    torch.testing.assert_close(found, x @ (changed - weight).T, rtol=0.01, atol=0.01)


def test_the_lengths_of_a_fused_layer_are_taken_apart(tmp_path: Path) -> None:
    """As the rows of its matrix are; those over the inputs of several layers cannot be."""
    flat, rows = "lora_unet_double_blocks_0_img_attn_qkv", 9216
    halves = {
        f"{flat}.lora_down.weight": torch.randn(RANK, 3072),
        f"{flat}.lora_up.weight": torch.randn(rows, RANK),
    }
    lengths = torch.rand(rows, 1)
    reader = LoraReader("it", "flux", modules_of("flux"), CPU)
    read = reader.read(write(tmp_path / "it.safetensors", halves | {f"{flat}.dora_scale": lengths}))
    parts = [LayerId("denoiser", f"transformer_blocks_0_attn_to_{one}") for one in "qkv"]
    found = [one for one in map(read.layers.get, parts) if isinstance(one, Decomposed)]
    assert torch.equal(torch.cat([one.lengths for one in found]), lengths)
    over_inputs = halves | {f"{flat}.dora_scale": torch.rand(1, 3072)}
    with pytest.raises(RenderFailed, match="has 3072 outputs, this checkpoint's 9216"):
        reader.read(write(tmp_path / "it.safetensors", over_inputs))
