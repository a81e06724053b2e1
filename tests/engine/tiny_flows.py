"""Tiny diffusers folders of flow families: real class names and config keys, toy widths."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from tests.engine.tiny_models import LETTERS, _text_encoder, _tokenizer, folder_until_exit

_D: Any = diffusers
_T: Any = transformers
_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
_PADS = ("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
FLUX_VAE = {
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


@cache
def tiny_flow(name: str) -> Path:
    """One of `MAKERS`, made once; its weights are random, and the same each time."""
    folder = folder_until_exit(f"tiny-{name}-")
    torch.manual_seed(0)
    MAKERS[name]().save_pretrained(folder)
    return folder


def t5_tokenizer(length: int = 512) -> Any:
    """A unigram model of printable ASCII, in T5's order: pad 0, end 1, unknown 2."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("\u2581", -2.0)]
    pieces += [(chr(code), -3.0) for code in range(33, 127)]
    return _T.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=length)


def t5_encoder(width: int = 32) -> Any:
    config = _T.T5Config(
        vocab_size=len(t5_tokenizer()),
        d_model=width,
        d_kv=8,
        d_ff=64,
        num_heads=4,
        num_layers=2,
        feed_forward_proj="gated-gelu",
    )
    return _T.T5EncoderModel(config)


def qwen_tokenizer() -> Any:
    """Bytes, with the chat marks of Qwen2 and Qwen3 and a template that takes their options."""
    vocabulary = {word: number for number, word in enumerate(LETTERS)}
    made = _T.Qwen2Tokenizer(vocab=vocabulary, merges=[], model_max_length=4096)
    made.add_special_tokens({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
    made.add_tokens([AddedToken(word, special=True) for word in (*_MARKS, *_PADS)])
    made.chat_template = _CHAT
    return made


def qwen3_config(layers: int) -> Any:
    return _T.Qwen3Config(
        vocab_size=len(qwen_tokenizer()) + 8,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=4096,
    )


def clip_text(width: int) -> Any:
    """A CLIP with a projection of its pooled output, as Stable Diffusion 3 has two."""
    activation = "quick_gelu" if width == 32 else "gelu"
    return _text_encoder(_T.CLIPTextModelWithProjection, width, activation)


def kl_vae(channels: int, **more: Any) -> Any:
    return _D.AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[8] * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        sample_size=64,
        **more,
    )


def flow_scheduler(**more: Any) -> Any:
    return _D.FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **more})


def moving_scheduler() -> Any:
    """Shift by resolution, as FLUX and Qwen-Image have it."""
    return flow_scheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)


def _z_image() -> Any:
    transformer = _D.ZImageTransformer2DModel(
        in_channels=16,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[1536, 128, 128],
    )
    with torch.no_grad():  # made with torch.empty: may be anything, NaN as well
        transformer.x_pad_token.normal_(std=0.02)
        transformer.cap_pad_token.normal_(std=0.02)
    return _D.ZImagePipeline(
        scheduler=flow_scheduler(),
        vae=kl_vae(16, **FLUX_VAE),
        text_encoder=_T.Qwen3Model(qwen3_config(layers=3)),
        tokenizer=qwen_tokenizer(),
        transformer=transformer,
    )


def _flux(*, guided: bool, fills: bool = False) -> Any:
    transformer = _D.FluxTransformer2DModel(
        # FLUX.1 Fill also looks at the masked picture and the mask's own pixels.
        in_channels=64 + 64 + 256 if fills else 64,
        out_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=guided,
        axes_dims_rope=(4, 4, 8),
    )
    pipeline = _D.FluxFillPipeline if fills else _D.FluxPipeline
    return pipeline(
        scheduler=moving_scheduler() if guided else flow_scheduler(shift=1.0),
        vae=kl_vae(16, **FLUX_VAE),
        text_encoder=_text_encoder(_T.CLIPTextModel, 32, "quick_gelu"),
        tokenizer=_tokenizer("<|endoftext|>"),
        text_encoder_2=t5_encoder(),
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
    )


def _flux2_vae() -> Any:
    return _D.AutoencoderKLFlux2(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[8] * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=32,
        sample_size=64,
    )


def _klein(*, distilled: bool) -> Any:
    transformer = _D.Flux2Transformer2DModel(
        in_channels=128,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * 16,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    return _D.Flux2KleinPipeline(
        scheduler=moving_scheduler(),
        vae=_flux2_vae(),
        # As deep as the pipeline reads: hidden states 9, 18 and 27.
        text_encoder=_T.Qwen3ForCausalLM(qwen3_config(layers=28)),
        tokenizer=qwen_tokenizer(),
        transformer=transformer,
        is_distilled=distilled,
    )


def qwen_vae(width: int = 4) -> Any:
    return _D.AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=width,
        # As diffusers expects them in Wan's names.
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=2,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1] * width,
        latents_std=[1.5] * width,
    )


def _qwen_image() -> Any:
    words = qwen_tokenizer()
    config = _T.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(words) + 8,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [1, 1, 2],
                "rope_theta": 1e6,
            },
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
        },
        image_token_id=words.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=words.convert_tokens_to_ids("<|vision_start|>"),
    )
    transformer = _D.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
    )
    return _D.QwenImagePipeline(
        scheduler=moving_scheduler(),
        vae=qwen_vae(),
        text_encoder=_T.Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=words,
        transformer=transformer,
    )


def gemma_tokenizer() -> Any:
    """Bytes: each character falls back to its own."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581"]
    words += [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {word: number for number, word in enumerate(words)}
    return _T.GemmaTokenizer(vocab=vocabulary, merges=[], add_bos_token=True)


def gemma2_config(layers: int = 3) -> Any:
    return _T.Gemma2Config(
        vocab_size=len(gemma_tokenizer()),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=64,
        max_position_embeddings=4096,
    )


def _lumina2() -> Any:
    transformer = _D.Lumina2Transformer2DModel(
        sample_size=16,
        in_channels=16,
        hidden_size=32,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(8, 4, 4),
        axes_lens=(512, 128, 128),
        cap_feat_dim=16,
    )
    return _D.Lumina2Pipeline(
        scheduler=flow_scheduler(shift=6.0),
        vae=kl_vae(16, **FLUX_VAE),
        text_encoder=_T.Gemma2Model(gemma2_config()),
        tokenizer=gemma_tokenizer(),
        transformer=transformer,
    )


def _chroma() -> Any:
    transformer = _D.ChromaTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    return _D.ChromaPipeline(
        scheduler=flow_scheduler(shift=1.0),
        vae=kl_vae(16, **FLUX_VAE),
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(),
        transformer=transformer,
    )


def dpm_scheduler(**more: Any) -> Any:
    return _D.DPMSolverMultistepScheduler(solver_order=2, **more)


def _aura_flow() -> Any:
    words = ["<unk>", "<s>", "</s>", "<pad>", "\u2581"]
    words += [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {word: number for number, word in enumerate(words)}
    encoder = _T.UMT5Config(
        vocab_size=len(words), d_model=32, d_kv=8, d_ff=32, num_heads=4, num_layers=2
    )
    transformer = _D.AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pos_embed_max_size=64,
    )
    with torch.no_grad():  # made with torch.empty or zeros
        transformer.pos_embed.pos_embed.normal_(std=0.02)
        transformer.register_tokens.normal_(std=0.02)
    return _D.AuraFlowPipeline(
        scheduler=flow_scheduler(shift=1.73),
        vae=kl_vae(4, scaling_factor=0.13025, force_upcast=True),
        text_encoder=_T.UMT5EncoderModel(encoder),
        tokenizer=_T.LlamaTokenizer(vocab=vocabulary, merges=[], pad_token="<pad>"),
        transformer=transformer,
    )


def _sana(*, sprint: bool = False) -> Any:
    few_steps = {"guidance_embeds": True, "qk_norm": "rms_norm_across_heads"} if sprint else {}
    transformer = _D.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=32,
        **few_steps,
    )
    vae = _D.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )
    parts = {
        "vae": vae,
        "text_encoder": _T.Gemma2Model(gemma2_config()),
        "tokenizer": gemma_tokenizer(),
        "transformer": transformer,
    }
    if sprint:
        return _D.SanaSprintPipeline(scheduler=_D.SCMScheduler(), **parts)
    scheduler = dpm_scheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return _D.SanaPipeline(scheduler=scheduler, **parts)


def _pixart() -> Any:
    transformer = _D.PixArtTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        num_layers=2,
        cross_attention_dim=32,
        caption_channels=32,
        sample_size=128,
        use_additional_conditions=False,
    )
    return _D.PixArtSigmaPipeline(
        scheduler=dpm_scheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.02),
        vae=kl_vae(4, scaling_factor=0.13025),
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(),
        transformer=transformer,
    )


def _hunyuan_dit() -> Any:
    letters = [chr(code) for code in range(33, 127)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    words += [f"##{letter}" for letter in letters]
    encoder = _T.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    transformer = _D.HunyuanDiT2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        patch_size=2,
        sample_size=16,
        hidden_size=32,
        num_layers=2,
        cross_attention_dim=16,
        cross_attention_dim_t5=32,
        pooled_projection_dim=16,
        use_style_cond_and_image_meta_size=False,
    )
    return _D.HunyuanDiTPipeline(
        scheduler=_D.DDPMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.018,
            prediction_type="v_prediction",
        ),
        vae=kl_vae(4, scaling_factor=0.13025),
        text_encoder=_T.BertModel(encoder),
        tokenizer=_T.BertTokenizer(
            vocab={word: number for number, word in enumerate(words)}, model_max_length=77
        ),
        text_encoder_2=t5_encoder(),
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _cogview3() -> Any:
    transformer = _D.CogView3PlusTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        text_embed_dim=32,
        time_embed_dim=16,
        condition_dim=4,
        sample_size=16,
    )
    return _D.CogView3PlusPipeline(
        scheduler=_D.CogVideoXDDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            snr_shift_scale=4.0,
        ),
        vae=kl_vae(4, scaling_factor=0.13025),
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(),
        transformer=transformer,
    )


def _cogview4() -> Any:
    words = ["[gMASK]", "<sop>", "<|endoftext|>", *LETTERS]
    raw = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.post_processor = processors.TemplateProcessing(
        single="[gMASK] <sop> $A", special_tokens=[("[gMASK]", 0), ("<sop>", 1)]
    )
    encoder = _T.GlmConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=2048,
        pad_token_id=2,
    )
    transformer = _D.CogView4Transformer2DModel(
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        text_embed_dim=16,
        time_embed_dim=16,
        condition_dim=4,
        rope_axes_dim=(256, 256),
    )
    return _D.CogView4Pipeline(
        scheduler=flow_scheduler(
            shift=1.0, use_dynamic_shifting=True, base_shift=0.25, time_shift_type="linear"
        ),
        vae=kl_vae(16, scaling_factor=1.0),
        text_encoder=_T.GlmModel(encoder),
        tokenizer=_T.PreTrainedTokenizerFast(
            tokenizer_object=raw, pad_token="<|endoftext|>", padding_side="left"
        ),
        transformer=transformer,
    )


def _sd3(*, with_t5: bool = True, **changed: Any) -> Any:
    transformer = _D.SD3Transformer2DModel(
        **{
            "sample_size": 16,
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 4,
            "caption_projection_dim": 32,
            "joint_attention_dim": 80,
            "pooled_projection_dim": 80,
            "pos_embed_max_size": 384,
            "qk_norm": "rms_norm",
            "dual_attention_layers": (0,),
            **changed,
        }
    )
    clip_l = clip_text(32)
    with torch.no_grad():  # as its folders have it: the pooled output of CLIP L is read as it is
        clip_l.text_projection.weight.copy_(torch.eye(32))
    return _D.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=flow_scheduler(),
        vae=kl_vae(16, **{**FLUX_VAE, "scaling_factor": 1.5305, "shift_factor": 0.0609}),
        text_encoder=clip_l,
        tokenizer=_tokenizer("<|endoftext|>"),
        text_encoder_2=clip_text(48),
        tokenizer_2=_tokenizer("!"),
        text_encoder_3=t5_encoder(80) if with_t5 else None,
        tokenizer_3=t5_tokenizer() if with_t5 else None,
    )


def _krea2(*, distilled: bool) -> Any:
    words = qwen_tokenizer()
    config = _T.Qwen3VLConfig(
        text_config={
            "vocab_size": len(words) + 8,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 36,  # as deep as the pipeline reads
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [2, 1, 1],
                "rope_theta": 1e6,
            },
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=words.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=words.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=words.convert_tokens_to_ids("<|vision_end|>"),
    )
    transformer = _D.Krea2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        timestep_embed_dim=16,
        text_hidden_dim=16,
        num_text_layers=12,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=16,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(8, 4, 4),
    )
    return _D.Krea2Pipeline(
        scheduler=moving_scheduler(),
        vae=qwen_vae(),
        text_encoder=_T.Qwen3VLModel(config),
        tokenizer=words,
        transformer=transformer,
        is_distilled=distilled,
    )


def _ernie_image() -> Any:
    words = qwen_tokenizer()
    config = _T.Mistral3Config(
        text_config={
            "model_type": "mistral",
            "vocab_size": len(words) + 8,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "head_dim": 8,
        },
    )
    transformer = _D.ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=2,
        ffn_hidden_size=32,
        text_in_dim=16,
        rope_axes_dim=(8, 4, 4),
    )
    with torch.no_grad():  # made with zeros, with which it says nothing
        for layer in (transformer.adaLN_modulation[-1], transformer.final_linear):
            layer.weight.normal_(std=0.2)
    return _D.ErnieImagePipeline(
        scheduler=flow_scheduler(),
        vae=_flux2_vae(),
        text_encoder=_T.Mistral3Model(config),
        tokenizer=_T.TokenizersBackend(
            tokenizer_object=words.backend_tokenizer,
            pad_token="<|endoftext|>",
            eos_token="<|im_end|>",
            model_max_length=100,
        ),
        transformer=transformer,
    )


def _ovis() -> Any:
    transformer = _D.OvisImageTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 4, 8),
    )
    return _D.OvisImagePipeline(
        scheduler=moving_scheduler(),
        vae=kl_vae(16, **FLUX_VAE),
        text_encoder=_T.Qwen3Model(qwen3_config(layers=3)),
        tokenizer=qwen_tokenizer(),
        transformer=transformer,
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "Z-Image": _z_image,
    "Z-Image-Turbo": _z_image,
    "FLUX.1-dev": lambda: _flux(guided=True),
    "FLUX.1-Krea-dev": lambda: _flux(guided=True),
    "FLUX.1-schnell": lambda: _flux(guided=False),
    "FLUX.1-Fill-dev": lambda: _flux(guided=True, fills=True),
    "FLUX.2-klein": lambda: _klein(distilled=True),
    "FLUX.2-klein-base": lambda: _klein(distilled=False),
    "Qwen-Image": _qwen_image,
    "AuraFlow": _aura_flow,
    "Sana": _sana,
    "Sana-Sprint": lambda: _sana(sprint=True),
    "HunyuanDiT": _hunyuan_dit,
    "CogView3-Plus": _cogview3,
    "PixArt-Sigma": _pixart,
    "CogView4": _cogview4,
    "Chroma1-HD": _chroma,
    "Lumina-Image-2.0": _lumina2,
    "ERNIE-Image": _ernie_image,
    "ERNIE-Image-Turbo": _ernie_image,
    "Ovis-Image-7B": _ovis,
    "Krea-2-Raw": lambda: _krea2(distilled=False),
    "Krea-2-Turbo": lambda: _krea2(distilled=True),
    "sd3.5-medium": _sd3,
    "sd3-medium": lambda: _sd3(
        with_t5=False, pos_embed_max_size=192, qk_norm=None, dual_attention_layers=()
    ),
    "sd3.5-large-turbo": lambda: _sd3(
        num_layers=38, pos_embed_max_size=192, dual_attention_layers=()
    ),
}
