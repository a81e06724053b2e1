"""LoRA files: whatever names and scales they have, the halves of each layer are found."""

from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

import picowatch
from picowatch.engine.lora_files import LoraFile, LoraReader
from picowatch.engine.lora_names import ROLE, LayerId, Modules
from picowatch.errors import RenderFailed
from tests.engine.adapters import RANK, Tensors, adapted_layers, kohya_lora, random_layer, write

# Chroma's transformer in diffusers 0.42 itself.
pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
_D: Any = diffusers
ASSETS = Path(picowatch.__file__).parent / "assets"
ATTN = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
FLAT = ATTN.replace(".", "_")
KOHYA = ("lora_unet_{flat}.lora_down.weight", "lora_unet_{flat}.lora_up.weight")
COMFYUI = ("diffusion_model.{name}.lora_A.weight", "diffusion_model.{name}.lora_B.weight")
PEFT = ("base_model.model.{name}.lora_A.weight", "base_model.model.{name}.lora_B.weight")
DEFAULT = ("{name}.lora_A.default.weight", "{name}.lora_B.default.weight")
DOTS = ("diffusion_model.{name}.lora.down.weight", "diffusion_model.{name}.lora.up.weight")
ONE_TRAINER = ("lora_transformer_{flat}.lora_down.weight", "lora_transformer_{flat}.lora_up.weight")
DIFFUSERS = ("transformer.{name}.lora_A.weight", "transformer.{name}.lora_B.weight")


# A pipeline, and one or two blocks of its transformer in full width.
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "flux": (_D.FluxPipeline, _D.FluxTransformer2DModel, {"num_single_layers": 1}),
    "z_image": (_D.ZImagePipeline, _D.ZImageTransformer2DModel, {"n_layers": 1}),
    "flux2": (_D.Flux2KleinPipeline, _D.Flux2Transformer2DModel, {"num_single_layers": 1}),
    "qwen_image": (_D.QwenImagePipeline, _D.QwenImageTransformer2DModel, {}),
    "sd3": (
        *(_D.StableDiffusion3Pipeline, _D.SD3Transformer2DModel),
        {"num_layers": 2, "dual_attention_layers": (0,)},
    ),
    "chroma": (_D.ChromaPipeline, _D.ChromaTransformer2DModel, {"num_single_layers": 1}),
    "lumina2": (_D.Lumina2Pipeline, _D.Lumina2Transformer2DModel, {}),
    "krea2": (_D.Krea2Pipeline, _D.Krea2Transformer2DModel, {}),
    "ernie_image": (_D.ErnieImagePipeline, _D.ErnieImageTransformer2DModel, {}),
}


@cache
def transformer(family: str) -> Any:
    """Without weights."""
    _, kind, values = FAMILIES[family]
    blocks = {} if family == "z_image" else {"num_layers": 1}
    with init_empty_weights():
        return kind(**(blocks | values))


def read(path: Path, family: str) -> LoraFile:
    kind = FAMILIES[family][0]
    modules = Modules("transformer", {"transformer": transformer(family)})
    return LoraReader("it", modules, lambda tensors: kind.lora_state_dict(tensors)).read(path)


# Layers as the models' authors name them, and what diffusers has instead.
ATTENTION = "transformer_blocks.0.attn"
FLUX = {
    "double_blocks.0.img_attn.qkv": f"{ATTENTION}.to_{{q,k,v}}",
    "double_blocks.0.img_attn.proj": f"{ATTENTION}.to_out.0",
    "double_blocks.0.txt_mlp.2": "transformer_blocks.0.ff_context.net.2",
    "single_blocks.0.linear1": (
        "single_transformer_blocks.0.{attn.to_q,attn.to_k,attn.to_v,proj_mlp}"
    ),
    "single_blocks.0.linear2": "single_transformer_blocks.0.proj_out",
}
AUTHORS = {
    "flux": FLUX | {"single_blocks.0.modulation.lin": "single_transformer_blocks.0.norm.linear"},
    "chroma": FLUX,
    "z_image": {
        "layers.0.attention.qkv": "layers.0.attention.to_{q,k,v}",
        "noise_refiner.0.attention.out": "noise_refiner.0.attention.to_out.0",
        "layers.0.feed_forward.w1": "layers.0.feed_forward.w1",
    },
    "flux2": {
        "double_blocks.0.img_attn.qkv": f"{ATTENTION}.to_{{q,k,v}}",
        "double_blocks.0.img_mlp.0": "transformer_blocks.0.ff.linear_in",
        "single_blocks.0.linear1": f"single_{ATTENTION}.to_qkv_mlp_proj",
        "img_in": "x_embedder",
    },
    "lumina2": {
        "layers.0.attention.qkv": "layers.0.attn.to_{q,k,v}",
        "noise_refiner.0.attention.out": "noise_refiner.0.attn.to_out.0",
        "context_refiner.0.feed_forward.w2": "context_refiner.0.feed_forward.linear_2",
        "layers.0.adaLN_modulation.1": "layers.0.norm1.linear",
    },
    "sd3": {
        "joint_blocks.0.x_block.attn.qkv": f"{ATTENTION}.to_{{q,k,v}}",
        "joint_blocks.0.x_block.attn2.qkv": f"{ATTENTION}2.to_{{q,k,v}}",
        "joint_blocks.0.context_block.attn.qkv": f"{ATTENTION}.add_{{q,k,v}}_proj",
        "joint_blocks.0.x_block.mlp.fc1": "transformer_blocks.0.ff.net.0.proj",
        "joint_blocks.0.x_block.adaLN_modulation.1": "transformer_blocks.0.norm1.linear",
    },
    "krea2": {
        "blocks.0.attn.wq": f"{ATTENTION}.to_q",
        "blocks.0.mlp.down": "transformer_blocks.0.ff.down",
        "txtfusion.refiner_blocks.0.attn.wo": "text_fusion.refiner_blocks.0.attn.to_out.0",
    },
}


def expanded(name: str) -> list[str]:
    """The layers that a name with braces stands for."""
    before, _, rest = name.partition("{")
    choices, _, after = rest.partition("}")
    return [before + choice + after for choice in choices.split(",")]


def named(layers: dict[str, tuple[int, int]], names: tuple[str, str]) -> Tensors:
    """A file's tensors for layers with so many outputs and inputs, and an alpha of 1."""
    tensors: Tensors = {}
    for number, (name, (outputs, inputs)) in enumerate(layers.items()):
        generator = torch.Generator().manual_seed(number)
        down, up = (one.format(name=name, flat=name.replace(".", "_")) for one in names)
        tensors[down] = torch.randn(RANK, inputs, generator=generator)
        tensors[up] = torch.randn(outputs, RANK, generator=generator)
        tensors[f"{down.partition('.lora')[0]}.alpha"] = torch.tensor(1.0)
    return tensors


@pytest.mark.parametrize(
    ("family", "names"),
    [
        (family, names)
        for family in AUTHORS
        for names in (KOHYA, COMFYUI, PEFT, DEFAULT, DOTS)
        if (family, names) != ("krea2", KOHYA)  # which neither diffusers nor a trainer has
    ],
)
def test_the_authors_names_stand_for_diffusers_layers(
    tmp_path: Path, family: str, names: tuple[str, str]
) -> None:
    """Whose rows follow each other in a layer that is one for the authors."""
    sides = {}
    for theirs, ours in AUTHORS[family].items():
        modules = [transformer(family).get_submodule(one) for one in expanded(ours)]
        sides[theirs] = (sum(one.out_features for one in modules), modules[0].in_features)
    tensors = named(sides, names)
    found = read(write(tmp_path / "it.safetensors", tensors), family)
    assert found.unused == ()
    halves = [one for key, one in tensors.items() if not key.endswith("alpha")]
    pairs = zip(halves[::2], halves[1::2], strict=True)
    for (down, up), ours in zip(pairs, AUTHORS[family].values(), strict=True):
        parts = [found.layers.pop(LayerId("transformer", one)) for one in expanded(ours)]
        together = torch.cat([part.up @ part.down[:, :8] for part in parts])
        torch.testing.assert_close(together, up @ down[:, :8] / RANK, rtol=1e-4, atol=1e-5)
    assert not found.layers


@pytest.mark.parametrize("names", [DIFFUSERS, ONE_TRAINER, KOHYA, COMFYUI])
@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_own_names_are_understood(
    tmp_path: Path, family: str, names: tuple[str, str]
) -> None:
    """With dots or underscores, and every prefix in use."""
    layers = {
        name: (module.out_features, module.in_features)
        for name, module in transformer(family).named_modules()
        if isinstance(module, nn.Linear)
    }
    found = read(write(tmp_path / "it.safetensors", named(layers, names)), family)
    assert {layer.module for layer in found.layers} == layers.keys()
    assert found.unused == ()


def test_xlabs_names_are_understood(tmp_path: Path) -> None:
    """1 is the image's, 2 the text's."""
    layers = {
        "double_blocks.0.processor.qkv_lora1": (9216, 3072),
        "double_blocks.0.processor.proj_lora2": (3072, 3072),
        "single_blocks.0.processor.qkv_lora": (9216, 3072),
    }
    tensors = named(layers, ("{name}.down.weight", "{name}.up.weight"))
    tensors = {key: one for key, one in tensors.items() if not key.endswith("alpha")}
    found = read(write(tmp_path / "it.safetensors", tensors), "flux")
    assert {layer.module for layer in found.layers} == {
        *expanded(f"{ATTENTION}.to_{{q,k,v,add_out}}"),
        *expanded(f"single_{ATTENTION}.to_{{q,k,v}}"),
    }


@pytest.mark.parametrize(
    ("family", "theirs", "ours", "width"),
    [
        ("flux", "final_layer.adaLN_modulation.1", "norm_out.linear", 3072),
        (
            *("sd3", "joint_blocks.1.context_block.adaLN_modulation.1"),
            *("transformer_blocks.1.norm1_context.linear", 1152),
        ),
    ],
)
def test_a_last_modulation_has_its_halves_in_diffusers_order(
    tmp_path: Path, family: str, theirs: str, ours: str, width: int
) -> None:
    """As diffusers converts the weights themselves (swap_scale_shift)."""
    tensors = named({theirs: (2 * width, width)}, KOHYA)
    down, up, _ = tensors.values()
    found = read(write(tmp_path / "it.safetensors", tensors), family).layers
    halves = found[LayerId("transformer", ours)]
    expected = torch.cat(up.chunk(2)[::-1]) @ down[:, :8] / RANK
    torch.testing.assert_close(halves.up @ halves.down[:, :8], expected)


def test_the_parts_of_a_layer_win_over_the_whole(tmp_path: Path) -> None:
    """Some files have both, and mean the same."""
    whole = named({"layers.0.attention.qkv": (11520, 3840)}, COMFYUI)
    part = named({"layers.0.attention.to_q": (3840, 3840)}, COMFYUI)
    alone = read(write(tmp_path / "part.safetensors", part), "z_image")
    found = read(write(tmp_path / "it.safetensors", part | whole), "z_image")
    layer = LayerId("transformer", "layers.0.attention.to_q")
    assert torch.equal(found.layers[layer].up, alone.layers[layer].up)
    assert len(found.layers) == 3


IN_CLIP = "encoder.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("layer", "key"),
    [
        *(
            (LayerId("unet", f"{ATTN}.{layer}"), key.format(flat=FLAT, name=ATTN, layer=layer))
            for layer in ("to_q", "to_out.0")
            for key in (
                "unet.{name}.{layer}.lora_A.weight",
                "base_model.model.{name}.{layer}.lora_A.weight",
                "unet.{name}.{layer}.lora.down.weight",
            )
        ),
        (LayerId("unet", f"{ATTN}.to_out.0"), f"lora_unet_{FLAT}_to_out_0.lora_down.weight"),
        (LayerId("unet", f"{ATTN}.to_out.0"), f"{ATTN}.processor.to_out_lora.down.weight"),
        (LayerId("unet", f"{ATTN}.to_q"), f"lycoris_{FLAT}_to_q.lora_down.weight"),
        (LayerId("unet", f"{ATTN}.to_q"), f"unet.{ATTN}.processor.to_q_lora.down.weight"),
        *(
            (LayerId("text_encoder", IN_CLIP), key)
            for key in (
                "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
                "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
                f"text_encoder.text_model.{IN_CLIP}.lora_A.weight",
                f"text_encoder.{IN_CLIP}.lora_linear_layer.down.weight",
                "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.down.weight",
                f"text_encoders.clip_l.transformer.text_model.{IN_CLIP}.lora_A.weight",
            )
        ),
    ],
)
def test_every_naming_means_the_same_layer(layer: LayerId, key: str) -> None:
    """Dots, underscores, attention processors; CLIP with `text_model` and without."""
    role = ROLE.search(key)
    assert role
    assert stable_diffusion("sd15").find(key[: role.start()]) == (layer,)


@cache
def empty(size: str) -> tuple[Any, Any]:
    """Stable Diffusion's UNet and first text encoder, without weights."""
    with init_empty_weights():
        kind = _D.UNet2DConditionModel
        unet = kind.from_config(kind.load_config(ASSETS / size / "unet"))
        config = CLIPTextConfig.from_pretrained(ASSETS / size / "text_encoder")
        return unet, CLIPTextModel(config)


@cache
def stable_diffusion(size: str) -> Modules:
    unet, text_encoder = empty(size)
    return Modules("unet", {"unet": unet, "text_encoder": text_encoder})


def test_all_of_stable_diffusion_15s_kohya_names_have_a_layer(tmp_path: Path) -> None:
    """192 of the UNet, 72 of the text encoder, with nothing left over."""
    unet, text_encoder = empty("sd15")
    tensors = {
        name: torch.zeros(()).expand(tensor.shape)
        for name, tensor in kohya_lora(unet, text_encoder).items()
    }
    path = write(tmp_path / "full.safetensors", tensors)
    assert len(adapted_layers(unet)) == 192
    found = LoraReader("full", stable_diffusion("sd15"), dict).read(path)
    assert len(found.layers) == 192 + 72
    assert found.unused == ()


def test_stability_ais_names_of_xls_layers_are_understood(tmp_path: Path) -> None:
    """kohya's for Stable Diffusion XL; conv_in's, too."""
    names = {
        "input_blocks_4_1_proj_in": "down_blocks.1.attentions.0.proj_in",
        "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
        "input_blocks_5_0_in_layers_2": "down_blocks.1.resnets.1.conv1",
        "middle_block_1_transformer_blocks_9_attn2_to_out_0": (
            "mid_block.attentions.0.transformer_blocks.9.attn2.to_out.0"
        ),
        "output_blocks_2_2_conv": "up_blocks.0.upsamplers.0.conv",
        "output_blocks_8_0_skip_connection": "up_blocks.2.resnets.2.conv_shortcut",
        "input_blocks_0_0": "conv_in",
    }
    unet, _ = empty("sdxl")
    tensors: Tensors = {}
    for theirs, ours in names.items():
        down, up = random_layer(unet.get_submodule(ours), 1)
        tensors |= {f"lora_unet_{theirs}.lora_down.weight": down}
        tensors |= {f"lora_unet_{theirs}.lora_up.weight": up}

    def convert(halves: Tensors) -> Tensors:
        found = _D.StableDiffusionXLPipeline.lora_state_dict(halves, unet_config=unet.config)
        return dict(found[0])

    reader = LoraReader("it", Modules("unet", {"unet": unet}), convert)
    found = reader.read(write(tmp_path / "it.safetensors", tensors))
    assert {layer.module for layer in found.layers} == {*names.values()}
    assert found.unused == ()


# From here on, single layers: what their weights would get.
def change(tensors: Tensors, tmp_path: Path, layer: nn.Module, **metadata: str) -> torch.Tensor:
    """What a file adds to the weight of a UNet's `to_q`."""
    unet = nn.Module()
    unet.to_q = layer
    path = write(tmp_path / "it.safetensors", tensors, metadata or None)
    ((_, halves),) = (
        LoraReader("it", Modules("unet", {"unet": unet}), dict).read(path).layers.items()
    )
    down, up = halves.down.float(), halves.up.float()
    return torch.einsum("or,r...->o...", up.flatten(1), down)


LINEAR, KERNEL = nn.Linear(16, 24), nn.Conv2d(8, 12, 3, padding=1)
RSLORA = ('{"unet.r": 4, "unet.lora_alpha": 8, "unet.use_rslora": true}', 8 / 4**0.5)
ALPHA = ('{"unet.r": 4, "unet.lora_alpha": 8}', 2.0)
PATTERNS = (
    '{"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": '
    '{"to_k": 2, "^x.to_q": 3, "to_[qv]": 16, "to_q": 32}}',
    4.0,
)


@pytest.mark.parametrize("settings", [ALPHA, RSLORA, PATTERNS], ids=["alpha", "rsLoRA", "pattern"])
@pytest.mark.parametrize(
    "names",
    [
        ("lora_A", "lora_B"),
        ("lora.down", "lora.up"),
        ("lora_linear_layer.down", "lora_linear_layer.up"),
    ],
)
def test_what_pefts_settings_say_of_the_scale_counts(
    tmp_path: Path, settings: tuple[str, float], names: tuple[str, str]
) -> None:
    """Whatever the halves are called."""
    down, up = random_layer(LINEAR, 3)
    tensors = {f"unet.to_q.{names[0]}.weight": down, f"unet.to_q.{names[1]}.weight": up}
    found = change(tensors, tmp_path, LINEAR, lora_adapter_metadata=settings[0])
    torch.testing.assert_close(found, settings[1] * up @ down)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"unet.lora_bias": true}', "is a LoRA with biases"),
        ('{"unet.use_dora": true}', "is a DoRA"),
        ('{"unet.alpha_pattern": {"to_[q": 4}}', "its lora_adapter_metadata cannot be read"),
        ("no JSON", "its lora_adapter_metadata cannot be read"),
    ],
)
def test_settings_of_peft_that_cannot_be_honoured_are_refused(
    tmp_path: Path, settings: str, message: str
) -> None:
    """Ignored, they would give another picture."""
    down, up = random_layer(LINEAR, 3)
    tensors = {"unet.to_q.lora_A.weight": down, "unet.to_q.lora_B.weight": up}
    with pytest.raises(RenderFailed, match=message):
        change(tensors, tmp_path, LINEAR, lora_adapter_metadata=settings)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("to_q.dora_scale", "is a DoRA"),
        ("to_q.lora_magnitude_vector", "is a DoRA"),
        ("to_q.diff", "is a file of whole differences"),
        ("to_q.diff_b", "is a file of whole differences"),
        ("to_q.oft_blocks", "is an OFT"),
        ("lora_unet_to_q.on_input", r"is an \(IA\)³"),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path: Path, key: str, message: str) -> None:
    """Differences that are zero change nothing."""
    down, up = random_layer(LINEAR, 3)
    tensors = {"to_q.lora_A.weight": down, "to_q.lora_B.weight": up, key: torch.ones(24)}
    with pytest.raises(RenderFailed, match=f"'it' {message}, which picowatch does not render"):
        change(tensors, tmp_path, LINEAR)
    if "diff" in key:
        found = change(tensors | {key: torch.zeros(24)}, tmp_path, LINEAR)
        torch.testing.assert_close(found, up @ down)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def lyco(layer: Any, kind: str) -> tuple[Tensors, torch.Tensor]:
    """The factors, and their product by LyCORIS' formulas."""
    outputs, inputs, *kernel = layer.weight.shape
    numbers = inputs * int(np.prod(kernel))
    if kind == "LoHa":
        (a, b), (c, d) = ((random(outputs, 3) * n, random(3, numbers) + n) for n in (1, 2))
        factors = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d}
        return factors, 2 / 3 * (a @ b) * (c @ d)
    if kind == "LoHa around a kernel":
        factors, product = {}, torch.tensor(2 / 3)
        for n in (1, 2):
            core, left, right = random(3, 3, *kernel) + n, random(3, outputs), random(3, inputs) * n
            factors |= {f"hada_t{n}": core, f"hada_w{n}_a": left, f"hada_w{n}_b": right}
            product = product * torch.einsum("rsxy,ro,si->oixy", core, left, right)
        return factors, product
    small, sides = random(4, 2), (outputs // 4, inputs // 2)
    if kind == "whole LoKr":
        large = random(*sides, *kernel)
        whole = np.kron(small.reshape(4, 2, *[1 for _ in kernel]).numpy(), large.numpy())
        return {"lokr_w1": small, "lokr_w2": large}, torch.from_numpy(whole)
    left, right = random(sides[0], 3), random(3, numbers // 2)
    factors = {"lokr_w1_a": small * 2, "lokr_w1_b": torch.eye(2) / 2}
    factors |= {"lokr_w2_a": left, "lokr_w2_b": right}
    return factors, 2 / 3 * torch.kron(small, left @ right)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        *((layer, kind) for layer in (LINEAR, KERNEL) for kind in ("LoHa", "LoKr", "whole LoKr")),
        (KERNEL, "LoHa around a kernel"),
    ],
)
def test_a_loha_or_lokr_is_a_lora_of_a_higher_rank(tmp_path: Path, layer: Any, kind: str) -> None:
    """Its halves make the same change."""
    factors, expected = lyco(layer, kind)
    tensors = {f"lora_unet_to_q.{role}": factor for role, factor in factors.items()}
    found = change(tensors | {"lora_unet_to_q.alpha": torch.tensor(2.0)}, tmp_path, layer)
    torch.testing.assert_close(found, expected.reshape(layer.weight.shape), rtol=1e-4, atol=1e-4)


def test_convolutions_may_have_their_kernel_apart(tmp_path: Path) -> None:
    """LyCORIS' `lora_mid`; and a matrix for a kernel of one position."""
    down, mid, up = random(3, 8, 1, 1), random(3, 3, 3, 3), random(12, 3, 1, 1)
    tensors = {"lora_unet_to_q.lora_down.weight": down, "lora_unet_to_q.lora_mid.weight": mid}
    tensors |= {"lora_unet_to_q.lora_up.weight": up}
    expected = torch.einsum("or,rsxy,si->oixy", up[..., 0, 0], mid, down[..., 0, 0])
    torch.testing.assert_close(change(tensors, tmp_path, KERNEL), expected)
    halves = {"lora_unet_to_q.lora_down.weight": random(3, 8)}
    halves |= {"lora_unet_to_q.lora_up.weight": random(12, 3)}
    found = change(halves, tmp_path, nn.Conv2d(8, 12, 1))
    torch.testing.assert_close(found, (random(12, 3) @ random(3, 8))[..., None, None])


def test_an_inpainting_checkpoints_first_layer_is_adapted_for_latents_alone(
    tmp_path: Path,
) -> None:
    """LyCORIS trains it, too: mask and picture are no inputs of its checkpoint."""
    unet = nn.Module()
    unet.conv_in = nn.Conv2d(9, 8, 3, padding=1)
    down, up = random(3, 4, 3, 3), random(8, 3, 1, 1)
    tensors = {"unet.conv_in.lora_A.weight": down, "unet.conv_in.lora_B.weight": up}
    path = write(tmp_path / "it.safetensors", tensors)
    (halves,) = LoraReader("it", Modules("unet", {"unet": unet}), dict).read(path).layers.values()
    assert torch.equal(halves.down[:, :4], down)
    assert halves.down.shape == (3, 9, 3, 3)
    assert not halves.down[:, 4:].any()
