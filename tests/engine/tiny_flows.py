"""Tiny diffusers folders of each family: the classes of their rows, in toy widths."""

import atexit
import json
import shutil
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cache
from inspect import signature
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTokenizer

from picowatch.engine.model.families import built
from picowatch.engine.model.load import without_videos
from picowatch.families import FAMILIES
from picowatch.families.row import (
    ANY_WORDS,
    FLUX2_VAE,
    FLUX_VAE,
    GEMMA2,
    KL,
    KL_QWEN,
    QWEN3_ANY,
    QWEN21_VAE,
    QWEN_VAE,
    QWEN_VL,
    SD3_VAE,
    T5,
    Classes,
    Family,
    parts_of,
)
from tests.engine.tiny_modular import write_modular

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())  # 256 characters, one for each byte
FIRST, SECOND = 32, 48  # widths of the text encoders


def checkpoints_of(models: Path, **folders: Path) -> Path:
    (models / "checkpoints").mkdir(parents=True)
    for name, folder in folders.items():
        (models / "checkpoints" / name).symlink_to(folder)
    return models


def folder_until_exit(prefix: str) -> Path:
    """A new folder for models that many tests share; it is gone when this process ends."""
    folder = Path(mkdtemp(prefix=prefix))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def clip_tokenizer(padding: str) -> Any:
    """Bytes without merges; the id 0 is "!", as in CLIP's vocabulary."""
    letters = ["!"] + [letter for letter in LETTERS if letter != "!"]
    words = letters + [f"{letter}</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token=padding, model_max_length=77)


def kl_vae(kind: Any = diffusers.AutoencoderKL, **more: Any) -> Any:
    """Return a VAE of four levels, with weights of its own."""
    return kind(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[8] * 4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        **more,
    )


_D: Any = diffusers
_T: Any = transformers
Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Tiny:
    """A folder of a family, with settings of its transformer or UNet and its scheduler.

    `depth` is that of its text encoder; of the weights in `blank`, which are made empty or of
    zeros, it has random ones. `without` some parts, and with `options` of its pipeline, which is
    the one of this `kind`. A pipeline without a row has `parts` of these classes, and settings of
    its VAE.
    """

    family: str
    transformer: Numbers
    scheduler: Numbers = field(default_factory=dict)
    depth: int = 3
    blank: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    variant: str = ""
    options: Numbers = field(default_factory=dict)
    kind: str = "text"
    parts: Mapping[str, Classes] = field(default_factory=dict)
    vae: Numbers = field(default_factory=dict)


@cache
def tiny_flow(name: str) -> Path:
    """Return one of `FOLDERS`, created once; its random weights are the same each time."""
    return _written(name, FOLDERS[name])


_DEPTHS = {
    *("num_layers", "num_single_layers", "n_layers"),
    *("num_mmdit_layers", "num_single_dit_layers"),
}


@cache
def deep_flow(name: str) -> Path:
    """Return one of `FOLDERS` like `tiny_flow`, with four blocks of each kind."""
    tiny = FOLDERS[name]
    kind = getattr(_D, FAMILIES[tiny.family].parts["transformer"][0])
    four = dict.fromkeys(_DEPTHS & _taken(kind), 4)
    return _written(name, replace(tiny, transformer={**tiny.transformer, **four}))


@cache
def tiny_unet(name: str) -> Path:
    """Return one of `UNETS` like `tiny_flow`."""
    return _written(name, UNETS[name])


def _written(name: str, tiny: Tiny) -> Path:
    folder = folder_until_exit(f"tiny-{name}-")
    torch.manual_seed(0)
    row = FAMILIES[tiny.family]
    variant = row.variant(tiny.variant)
    classes = tiny.parts or row.parts
    parts = {
        part: _part(part, kinds[0], row, tiny)
        for part, kinds in classes.items()
        if part not in tiny.without
    }
    if row.modular:
        write_modular(folder, (variant.pipelines or row.pipelines).text, row.hub, parts)
        return folder
    variant = replace(variant, options={**variant.options, **tiny.options})
    built(row, variant, tiny.kind, parts).save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    for part in parts:  # the class that was made without what asks for torchvision
        if classes[part][0] in _SEE:
            index[part] = ["transformers", classes[part][0]]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


_SEE = ("Qwen2VLProcessor", "Qwen3VLProcessor")


def _part(part: str, kind: str, row: Family, tiny: Tiny) -> Any:
    made = getattr(_D if hasattr(_D, kind) else _T, kind)
    if kind in _SEE:
        return _processor(made)
    if "tokenizer" in part:
        return TOKENIZERS[row.key if row.key in TOKENIZERS else kind](part)
    if part == "siglip_processor":
        return _T.Siglip2ImageProcessorPil()
    if part == "siglip":
        return made(made.config_class(**_SMALL, num_hidden_layers=1))
    if kind.startswith("CLIP"):
        return _clip(made, part, tiny)
    if part == "text_conditioner":
        return made(**CONDITIONER)
    if part.startswith("text_encoder"):
        wide = {"d_model": 80} if (row.key, part) == ("sd3", "text_encoder_3") else {}
        return made(made.config_class(**{**ENCODERS[kind](tiny.depth), **wide}))
    if part == "vae":
        numbers = tiny.vae or VAES.get(row.vaes[-1] if row.vaes else "", VAES[""])
        return kl_vae(made, **numbers) if kind in _FOUR_LEVELS else made(**numbers)
    if part == "scheduler":
        return made(**tiny.scheduler)
    if part == "guider":
        return made(guidance_scale=2.0, enabled=False)
    usual = {} if part == "unet" else {name: _TOY[name] for name in _TOY.keys() & _taken(made)}
    transformer = made(**{**usual, **tiny.transformer})
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            if any(word in name for word in tiny.blank):
                weight.normal_(std=0.1)
    return transformer


def _taken(kind: Any) -> Set[str]:
    return signature(kind.__init__).parameters.keys()


_FOUR_LEVELS = ("AutoencoderKL", "AutoencoderKLFlux2")


# Tokenizers by their classes, or by their family where its differ.
_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}"
    "{{ m['content'] }}{% else %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
_PADS = ("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]  # each character falls back to its own
_LLAMA_WORDS = ["<unk>", "<s>", "</s>", "<pad>", "\u2581", *_BYTES]
_GEMMA_WORDS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *_BYTES]
_PRINTABLE = [chr(code) for code in range(33, 127)]
BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_PRINTABLE]
BERT_WORDS += [f"##{letter}" for letter in _PRINTABLE]
_GLM_WORDS = ["[gMASK]", "<sop>", "<|endoftext|>", *LETTERS]


def _numbered(words: list[str]) -> dict[str, int]:
    return {word: number for number, word in enumerate(words)}


def t5_tokenizer(_: str = "") -> Any:
    """A unigram model of printable ASCII, in T5's order: pad 0, end 1, unknown 2."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("\u2581", -2.0)]
    pieces += [(letter, -3.0) for letter in _PRINTABLE]
    return _T.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def qwen_tokenizer(_: str = "") -> Any:
    """Bytes, with the chat marks of Qwen2 and Qwen3 and a template that takes their options."""
    made = _T.Qwen2Tokenizer(vocab=_numbered(LETTERS), merges=[], model_max_length=4096)
    made.add_special_tokens({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
    made.add_tokens([AddedToken(word, special=True) for word in (*_MARKS, *_PADS)])
    made.chat_template = _CHAT
    return made


def _processor(kind: Any) -> Any:
    """Qwen's processor of pictures and texts, without torchvision."""
    side = {"shortest_edge": 56 * 56, "longest_edge": 4096 * 4096}
    third: dict[str, Any] = {"patch_size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    more = third if kind is _T.Qwen3VLProcessor else {}
    pixels = _T.Qwen2VLImageProcessorPil(size=side, **more)
    words = qwen_tokenizer()
    return without_videos(kind)(pixels, words, chat_template=words.chat_template)


def _ernie_tokenizer(_: str) -> Any:
    return _T.TokenizersBackend(
        tokenizer_object=qwen_tokenizer().backend_tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        model_max_length=100,
    )


_MISTRAL_CHAT = (
    "<s>{% for m in messages %}{% if m['role'] == 'system' %}[SYSTEM_PROMPT]{% else %}[INST]"
    "{% endif %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}"
    "{% if m['role'] == 'system' %}[/SYSTEM_PROMPT]{% else %}[/INST]{% endif %}{% endfor %}"
)
_MISTRAL_MARKS = ["<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]"]
_MISTRAL_MARKS += ["[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]


def _bpe_of(words: list[str], *marks: str) -> Any:
    """Bytes, and words of which some are marks."""
    raw = Tokenizer(models.BPE(_numbered(words), []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.add_special_tokens([AddedToken(word, special=True) for word in marks])
    return raw


def _mistral_tokenizer(_: str) -> Any:
    made = _T.PreTrainedTokenizerFast(
        tokenizer_object=_bpe_of([*_MISTRAL_MARKS, *LETTERS], *_MISTRAL_MARKS),
        bos_token="<s>",
        pad_token="<pad>",
        padding_side="left",
    )
    made.chat_template = _MISTRAL_CHAT
    return made


def _glm_tokenizer(_: str) -> Any:
    raw = _bpe_of(_GLM_WORDS)
    raw.post_processor = processors.TemplateProcessing(
        single="[gMASK] <sop> $A", special_tokens=[("[gMASK]", 0), ("<sop>", 1)]
    )
    return _T.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<|endoftext|>", padding_side="left"
    )


def _plain_tokenizer() -> Any:
    words = _bpe_of(["<pad>", *LETTERS])
    marks = {"pad_token": "<pad>", "eos_token": "<pad>"}
    return _T.PreTrainedTokenizerFast(tokenizer_object=words, **marks)


TOKENIZERS: dict[str, Callable[[str], Any]] = {
    "CLIPTokenizer": lambda part: clip_tokenizer("!" if part == "tokenizer_2" else "<|endoftext|>"),
    "T5Tokenizer": t5_tokenizer,
    "Qwen2Tokenizer": qwen_tokenizer,
    "GemmaTokenizer": lambda _: _T.GemmaTokenizer(
        vocab=_numbered(_GEMMA_WORDS), merges=[], add_bos_token=True
    ),
    "LlamaTokenizer": lambda _: _T.LlamaTokenizer(
        vocab=_numbered(_LLAMA_WORDS), merges=[], pad_token="<pad>"
    ),
    "BertTokenizer": lambda _: _T.BertTokenizer(vocab=_numbered(BERT_WORDS), model_max_length=77),
    "PixtralProcessor": _mistral_tokenizer,
    "sd2": lambda _: clip_tokenizer("!"),
    "ernie_image": _ernie_tokenizer,
    "CogView4Pipeline": _glm_tokenizer,
    "ByT5Tokenizer": lambda _: _T.ByT5Tokenizer(),
    "PreTrainedTokenizerFast": lambda _: _plain_tokenizer(),
}


# Configs of text encoders by their classes, some for a depth.
_SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
_DECODER = {**_SMALL, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 4096}
_EYES = {**_SMALL, "depth": 1, "num_heads": 2, "out_hidden_size": 16}
_T5 = {"d_kv": 8, "d_ff": 64, "num_heads": 4, "num_layers": 2}
_QWEN_WORDS = len(qwen_tokenizer()) + 8


def _clip(kind: Any, part: str, tiny: Tiny) -> Any:
    """A CLIP for `clip_tokenizer`; OpenCLIP's have another activation."""
    second = part == "text_encoder_2"
    width = SECOND if second else FIRST
    config = CLIPTextConfig(
        vocab_size=2 * len(LETTERS) + 2,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=width,
        hidden_act="gelu" if second or tiny.family == "sd2" else "quick_gelu",
        bos_token_id=2 * len(LETTERS),
        eos_token_id=2 * len(LETTERS) + 1,
        pad_token_id=1,
    )
    made = kind(config)
    if hasattr(made, "text_projection") and not second:
        with torch.no_grad():  # as folders of SD 3 have it: its pooled output is read as it is
            made.text_projection.weight.copy_(torch.eye(FIRST))
    return made


def _text(depth: int, words: int = _QWEN_WORDS, **more: Any) -> dict[str, Any]:
    return {**_DECODER, "vocab_size": words, "num_hidden_layers": depth, **more}


def _qwen_vl(depth: int, sections: list[int], **eyes: Any) -> Numbers:
    ids = qwen_tokenizer().convert_tokens_to_ids
    rope = {"rope_type": "default", "mrope_section": sections, "rope_theta": 1e6}
    return {
        "text_config": _text(depth, rope_parameters=rope),
        "vision_config": _EYES | eyes,
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
    }


def _mistral3(depth: int) -> Numbers:
    return {
        "text_config": _text(depth, model_type="mistral"),
        "vision_config": {"model_type": "pixtral", **_SMALL, "num_hidden_layers": 1, "head_dim": 8},
    }


ENCODERS: dict[str, Callable[[int], Numbers]] = {
    "T5EncoderModel": lambda _: {
        **_T5,
        "d_model": 32,
        "vocab_size": len(t5_tokenizer()),
        "feed_forward_proj": "gated-gelu",
    },
    "UMT5EncoderModel": lambda _: {**_T5, "d_model": 32, "vocab_size": len(_LLAMA_WORDS)},
    "BertModel": lambda _: {**_SMALL, "vocab_size": len(BERT_WORDS), "num_hidden_layers": 2},
    "Qwen3Model": _text,
    "Qwen3ForCausalLM": _text,
    "Gemma2Model": lambda depth: _text(
        depth, len(_GEMMA_WORDS), query_pre_attn_scalar=8, sliding_window=64
    ),
    # The pipeline has the number of Llama's first token.
    "SmolLM3ForCausalLM": lambda depth: _text(depth, 128001, pad_token_id=0),
    "GlmModel": lambda depth: _text(depth, len(_GLM_WORDS), pad_token_id=2),
    "Qwen2_5_VLForConditionalGeneration": lambda depth: _qwen_vl(depth, [1, 1, 2]),
    "Qwen3VLForConditionalGeneration": lambda depth: _qwen_vl(
        depth, [2, 1, 1], deepstack_visual_indexes=[0], patch_size=16, num_position_embeddings=64
    ),
    "Qwen3VLModel": lambda depth: _qwen_vl(depth, [2, 1, 1], deepstack_visual_indexes=[0]),
    "Mistral3Model": _mistral3,
    "Mistral3ForConditionalGeneration": _mistral3,
}


# fmt: off
# VAEs by the last of those that a family's row names.
_PLAIN = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
_SANA_BLOCKS = {
    "block_types": ("ResBlock", "EfficientViTBlock"), "block_out_channels": (8, 8),
    "qkv_multiscales": ((), (5,)), "layers_per_block": (1, 1),
}
VAES: dict[str, Numbers] = {
    "": {"latent_channels": 4, "scaling_factor": 0.13025},
    FLUX_VAE: {**_PLAIN, "scaling_factor": 0.3611, "shift_factor": 0.1159},
    SD3_VAE: {**_PLAIN, "scaling_factor": 1.5305, "shift_factor": 0.0609},
    FLUX2_VAE: {"latent_channels": 32},
    QWEN_VAE: {  # as diffusers expects it in Wan's names
        "base_dim": 4, "z_dim": 4, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2,
        "temperal_downsample": [False, True, True],
        "latents_mean": [0.1] * 4, "latents_std": [1.5] * 4,
    },
    QWEN21_VAE: {
        "base_dim": 8, "decoder_base_dim": 8, "z_dim": 8, "num_res_blocks": 1,
        "dim_mult": [1] * 5, "latents_mean": [0.1] * 8, "latents_std": [1.5] * 8,
    },
}
_SANA_VAE = {
    **{f"encoder_{name}": value for name, value in _SANA_BLOCKS.items()},
    **{f"decoder_{name}": value for name, value in _SANA_BLOCKS.items()},
    "latent_channels": 4, "attention_head_dim": 2, "scaling_factor": 0.41407,
    "downsample_block_type": "conv", "upsample_block_type": "interpolate",
}


# Schedulers: with a constant shift, and one by resolution, as FLUX and Qwen-Image have it.
_FLOW, _SHIFT_1 = {"shift": 3.0}, {"shift": 1.0}
_MOVING = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
_LEADING: Numbers = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
    "steps_offset": 1, "timestep_spacing": "leading",
}

# Maps what Qwen3 makes of a prompt, by T5's ids.
CONDITIONER: Numbers = {
    "source_dim": 16, "target_dim": 16, "model_dim": 16, "num_layers": 1,
    "num_attention_heads": 2, "target_vocab_size": len(t5_tokenizer()),
}

# Transformers: their parameters have these values, unless a family's folder says another.
_TOY: Numbers = {
    **dict.fromkeys(("num_layers", "num_attention_heads", "text_num_attention_heads"), 2),
    **dict.fromkeys(("n_layers", "n_heads", "n_kv_heads", "text_num_key_value_heads"), 2),
    **dict.fromkeys(("num_single_layers", "n_refiner_layers", "num_refiner_layers"), 1),
    **dict.fromkeys(("num_layerwise_text_blocks", "num_refiner_text_blocks"), 1),
    **dict.fromkeys(("num_mmdit_layers", "num_single_dit_layers", "approximator_layers"), 1),
    **dict.fromkeys(("attention_head_dim", "joint_attention_dim", "cross_attention_dim"), 16),
    **dict.fromkeys(("text_embed_dim", "text_in_dim", "text_hidden_dim", "cap_feat_dim"), 16),
    **dict.fromkeys(("context_in_dim", "text_encoder_dim", "caption_channels"), 16),
    **dict.fromkeys(("timestep_embed_dim", "time_embed_dim", "adaln_dim"), 16),
    **dict.fromkeys(("text_intermediate_size", "moe_intermediate_dim"), 16),
    **dict.fromkeys(("approximator_hidden_dim", "multiple_of"), 16),
    **dict.fromkeys(("dim", "hidden_size", "intermediate_size", "ffn_hidden_size"), 32),
    **dict.fromkeys(("timestep_channels", "timestep_guidance_channels"), 32),
    **dict.fromkeys(("caption_projection_dim", "text_embed_2_dim", "cross_attention_dim_t5"), 32),
    **dict.fromkeys(("adaln_lora_dim", "approximator_num_channels"), 8),
    "axes_dims_rope": (8, 4, 4), "axes_dim_rope": (8, 4, 4), "rope_axes_dim": (8, 4, 4),
    "axes_dims": [8, 4, 4],
}
_FLUX = {"in_channels": 64, "num_layers": 1, "axes_dims_rope": (4, 4, 8)}
_FLUX1 = Tiny(
    "flux",
    {**_FLUX, "joint_attention_dim": 32, "pooled_projection_dim": 32, "guidance_embeds": True},
    _MOVING,
)
_KLEIN_TRANSFORMER = {
    **_FLUX,
    "in_channels": 128, "joint_attention_dim": 3 * 16, "axes_dims_rope": (4, 4, 4, 4),
    "guidance_embeds": False,
}
# Deeper than the pipeline reads: hidden states 9, 18 and 27.
_KLEIN = Tiny("flux2", _KLEIN_TRANSFORMER, _MOVING, depth=30)
_Z_IMAGE = Tiny(
    "z_image", {"in_channels": 16, "axes_lens": [1536, 128, 128]}, _FLOW, blank=("pad_token",)
)
_ERNIE = Tiny("ernie_image", {}, _FLOW, blank=("adaLN_modulation.1", "final_linear"))
_KREA2 = Tiny(
    "krea2",
    {"in_channels": 16, "num_key_value_heads": 1, "num_text_layers": 12},
    _MOVING,
    depth=36,  # as deep as the pipeline reads
)
_ANIMA = Tiny(
    "anima",
    {
        "in_channels": 4, "out_channels": 4, "mlp_ratio": 2.0, "max_size": (4, 32, 32),
        "rope_scale": (1.0, 4.0, 4.0), "concat_padding_mask": True, "extra_pos_embed_type": None,
    },
    _FLOW,
)
_FLUX3 = Tiny(
    "flux3",
    {
        "num_layers": 1, "num_single_layers": 2, "joint_attention_dim": 8 * 16,
        "axes_dims_rope": (4, 4, 4, 4), "flow_map": True,
    },
    depth=36,  # deeper than the pipeline reads: hidden states 4, 8, … 32
    variant="klein",
    without=("scheduler",),
)
_LONGCAT = Tiny(
    "longcat_image",
    {
        "num_layers": 1, "num_single_layers": 2, "pooled_projection_dim": 16,
        "axes_dims_rope": (4, 4, 8),
    },
    _MOVING,
    blank=("norm_out",),
)
_SANA = {
    "in_channels": 4, "out_channels": 4, "attention_head_dim": 8, "sample_size": 32,
    "num_cross_attention_heads": 2, "cross_attention_head_dim": 8,
}
_SD3 = Tiny(
    "sd3",
    {
        "sample_size": 16, "in_channels": 16, "out_channels": 16, "attention_head_dim": 8,
        "num_attention_heads": 4, "joint_attention_dim": 80, "pooled_projection_dim": 80,
        "pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": (0,),
    },
    _FLOW,
)
_QWEN_IMAGE = Tiny("qwen_image", {"in_channels": 16, "out_channels": 4}, _MOVING)


def _with(tiny: Tiny, without: tuple[str, ...] = (), **numbers: Any) -> Tiny:
    return replace(tiny, without=without, transformer={**tiny.transformer, **numbers})


_SDXL = Tiny(
    "sdxl",
    {
        "sample_size": 16, "block_out_channels": (32, 64, 64), "layers_per_block": 1,
        "norm_num_groups": 8, "transformer_layers_per_block": (1, 2, 3),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4, 8), "use_linear_projection": True,
        "cross_attention_dim": FIRST + SECOND, "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 6 * 8 + SECOND,
    },
    _LEADING,
)
_SD2 = replace(
    _with(
        _SDXL, cross_attention_dim=FIRST, transformer_layers_per_block=1,
        addition_embed_type=None, projection_class_embeddings_input_dim=None,
    ),
    family="sd2",
    scheduler={**_LEADING, "prediction_type": "v_prediction"},
)
# An inpainting UNet also looks at the mask and at what it leaves; one that was distilled for few
# steps (LCM) at the guidance.
_INPAINTING: dict[str, Any] = {"in_channels": 9}
_LCM: dict[str, Any] = {"time_cond_proj_dim": 16}
UNETS: dict[str, Tiny] = {
    "sdxl": _SDXL,
    "sdxl-inpainting": _with(_SDXL, **_INPAINTING),
    "sdxl-lcm": _with(_SDXL, **_LCM),
    "sd2": _SD2,
    "sd2-inpainting": replace(_with(_SD2, **_INPAINTING), scheduler=_LEADING),
    "sd2-lcm": _with(_SD2, **_LCM),
}
FOLDERS: dict[str, Tiny] = {
    "Z-Image": _Z_IMAGE,
    "Z-Image-Turbo": _Z_IMAGE,
    "FLUX.1-dev": _FLUX1,
    "FLUX.1-Krea-dev": _FLUX1,
    "FLUX.1-schnell": replace(_with(_FLUX1, guidance_embeds=False), scheduler=_SHIFT_1),
    "FLUX.1-Kontext-dev": replace(_FLUX1, variant="Kontext"),
    # It also looks at the masked picture and the mask's own pixels.
    "FLUX.1-Fill-dev": replace(
        _with(_FLUX1, in_channels=64 + 64 + 256, out_channels=64), variant="Fill"
    ),
    "FLUX.2-dev": Tiny(
        # Deeper than the pipeline reads: hidden states 10, 20 and 30.
        *("flux2_dev", {**_KLEIN_TRANSFORMER, "guidance_embeds": True}, _MOVING),
        depth=33,
    ),
    "FLUX.2-klein": replace(_KLEIN, options={"is_distilled": True}),
    "FLUX.2-klein-kv": replace(_KLEIN, variant="klein KV", kind="edit"),
    "FLUX.2-klein-base": replace(_KLEIN, options={"is_distilled": False}),
    "Qwen-Image": replace(_QWEN_IMAGE, without=("processor",)),
    "Qwen-Image-Edit": replace(_QWEN_IMAGE, variant="Edit"),
    "Qwen-Image-Edit-2509": replace(_QWEN_IMAGE, variant="Edit 2509"),
    "Qwen-Image-Edit-2511": replace(_with(_QWEN_IMAGE, zero_cond_t=True), variant="Edit 2511"),
    "Qwen-Image-2.1": Tiny("qwen_image_21", {"in_channels": 8, "out_channels": 8}, _MOVING),
    "FLUX.3-klein": _FLUX3,
    "FLUX.3-klein-base": _with(replace(_FLUX3, variant="klein base"), flow_map=False),
    "Ovis-Image-7B": Tiny("ovis_image", _FLUX, _MOVING, blank=("norm_out",)),
    "LongCat-Image": _LONGCAT,
    "LongCat-Image-Edit": replace(_LONGCAT, variant="Edit"),
    "Ideogram-4": Tiny(
        "ideogram4",
        {"llm_features_dim": 13 * 16, "mrope_section": (4, 2, 2)},
        depth=36,  # as deep as the pipeline reads
        blank=("adaln_modulation", "final_layer"),
    ),
    "Anima": _ANIMA,
    "Anima-Turbo": _ANIMA,
    "Chroma1-HD": Tiny("chroma", {**_FLUX, "joint_attention_dim": 32}, _SHIFT_1),
    "Lumina-Image-2.0": Tiny(
        "lumina2",
        {"sample_size": 16, "in_channels": 16, "num_kv_heads": 1, "axes_lens": (512, 128, 128)},
        {"shift": 6.0},
    ),
    "ERNIE-Image": _ERNIE,
    "ERNIE-Image-Turbo": _ERNIE,
    "Krea-2-Raw": replace(_KREA2, options={"is_distilled": False}),
    "Krea-2-Turbo": replace(_KREA2, options={"is_distilled": True}),
    "sd3.5-medium": _SD3,
    "sd3-medium": _with(
        *(_SD3, ("text_encoder_3", "tokenizer_3")),
        pos_embed_max_size=192,
        qk_norm=None,
        dual_attention_layers=(),
    ),
    "sd3.5-large-turbo": _with(
        _SD3, num_layers=38, pos_embed_max_size=192, dual_attention_layers=()
    ),
}
_DPM = "DPMSolverMultistepScheduler"
_GEMMA = parts_of("SanaTransformer2DModel", "AutoencoderDC", GEMMA2, scheduler=_DPM)
_SANA_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
_QWEN_NUMBERS = VAES[QWEN_VAE]
# Pipelines without a row.
GENERAL: dict[str, Tiny] = {
    "AuraFlow": Tiny(
        "AuraFlowPipeline",
        {
            "sample_size": 8, "attention_head_dim": 8, "num_attention_heads": 4,
            "joint_attention_dim": 32, "pos_embed_max_size": 64,
        },
        {"shift": 1.73},
        blank=("pos_embed.pos_embed", "register_tokens"),
        parts=parts_of("AuraFlowTransformer2DModel", KL, ("UMT5EncoderModel", ("LlamaTokenizer",))),
    ),
    "Sana": Tiny("SanaPipeline", _SANA, _SANA_FLOW, parts=_GEMMA, vae=_SANA_VAE),
    "Sana-Sprint": Tiny(
        "SanaSprintPipeline",
        {**_SANA, "guidance_embeds": True, "qk_norm": "rms_norm_across_heads"},
        parts={**_GEMMA, "scheduler": ("SCMScheduler",)},
        vae=_SANA_VAE,
    ),
    "PixArt-Sigma": Tiny(
        "PixArtSigmaPipeline",
        {
            "num_attention_heads": 4, "attention_head_dim": 8, "cross_attention_dim": 32,
            "caption_channels": 32, "sample_size": 128, "use_additional_conditions": False,
        },
        {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
        parts=parts_of("PixArtTransformer2DModel", KL, T5, scheduler=_DPM),
    ),
    "CogView4": Tiny(
        "CogView4Pipeline",
        {
            "num_attention_heads": 4, "attention_head_dim": 8, "condition_dim": 4,
            "rope_axes_dim": (256, 256),
        },
        {
            "shift": 1.0, "use_dynamic_shifting": True, "base_shift": 0.25,
            "time_shift_type": "linear",
        },
        parts=parts_of("CogView4Transformer2DModel", KL, ("GlmModel", ANY_WORDS)),
        vae={"latent_channels": 16, "scaling_factor": 1.0},
    ),
    "Z-Image-Omni": replace(
        _with(_Z_IMAGE, siglip_feat_dim=16, axes_lens=[1536, 512, 512]),
        family="ZImageOmniPipeline",
        parts={
            **parts_of("ZImageTransformer2DModel", KL, QWEN3_ANY),
            "siglip": ("Siglip2VisionModel",),
            "siglip_processor": ("Siglip2ImageProcessor",),
        },
        vae=VAES[FLUX_VAE],
    ),
    "HunyuanImage-2.1": Tiny(
        "HunyuanImagePipeline",
        {
            "in_channels": 4, "out_channels": 4, "num_layers": 1, "guidance_embeds": True,
            "rope_axes_dim": (8, 8),
        },
        _FLOW,
        parts={
            **parts_of(
                "HunyuanImageTransformer2DModel", "AutoencoderKLHunyuanImage",
                QWEN_VL, ("T5EncoderModel", ("ByT5Tokenizer",)),
            ),
            "guider": ("AdaptiveProjectedMixGuidance",),
        },
        vae={
            "in_channels": 3, "out_channels": 3, "latent_channels": 4, "layers_per_block": 1,
            "block_out_channels": (32, 32), "spatial_compression_ratio": 2, "sample_size": 64,
            "scaling_factor": 0.75,
        },
    ),
    "FIBO": Tiny(
        "BriaFiboPipeline",
        {**_FLUX, "in_channels": 4, "joint_attention_dim": 32},
        _MOVING,
        parts=parts_of(
            "BriaFiboTransformer2DModel", "AutoencoderKLWan", ("SmolLM3ForCausalLM", ANY_WORDS)
        ),
        vae={
            **_QWEN_NUMBERS, "patch_size": 2, "is_residual": True, "in_channels": 12,
            "out_channels": 12, "scale_factor_spatial": 16,
        },
    ),
    "Nucleus-Image": Tiny(
        "NucleusMoEImagePipeline",
        {
            "in_channels": 16, "out_channels": 4, "num_experts": 4, "capacity_factors": 2.0,
            "dense_moe_strategy": "all_moe",
        },
        _MOVING,
        depth=9,  # the pipeline reads the eighth from the end
        blank=("experts.",),
        parts={
            **parts_of("NucleusMoEImageTransformer2DModel", KL_QWEN),
            "text_encoder": ("Qwen3VLForConditionalGeneration",),
            "processor": ("Qwen3VLProcessor",),
        },
        vae=_QWEN_NUMBERS,
    ),
    "HunyuanDiT": Tiny(
        "HunyuanDiTPipeline",
        {"in_channels": 4, "patch_size": 2, "sample_size": 8, "pooled_projection_dim": 16},
        {"beta_schedule": "scaled_linear", "beta_end": 0.018, "prediction_type": "v_prediction"},
        blank=("text_embedding_padding",),
        parts=parts_of(
            *("HunyuanDiT2DModel", KL, ("BertModel", ("BertTokenizer",)), T5),
            scheduler="DDPMScheduler",
        ),
    ),
}
FOLDERS |= GENERAL
