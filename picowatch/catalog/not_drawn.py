"""Models that picowatch knows by their tensors and does not draw from a file, to name them.

The names of tensors are their authors', as in ComfyUI (comfy/model_detection.py), and diffusers'.
"""

from picowatch.catalog.headers import Header
from picowatch.families.general import diffusers_here

REFINER = (
    "is the refiner of Stable Diffusion XL: picowatch draws with the base model, and with hires in "
    "place of this one."
)
_TOKENS = "txt_in.individual_token_refiner."
# By what is said: names, with a folder to get, and signs (`Header.shows`), of which "|" is between
# the authors' names and diffusers'. The first counts.
_KNOWN = {
    "is {}, which {diffusers} cannot draw.": {
        "HiDream-O1": "t_embedder1. final_layer2.",
        "Chroma1-Radiance": "nerf_blocks.",
        "NewBie": "cap_embedder. clip_text_pooled_proj.",
    },
    "is {}, of which picowatch draws no pictures.": {
        "GLM-Image": "glyph_projector. prior_token_embedding.",
        "Qwen-Image-Layered": "time_text_embed.addition_t_embedding.",
        "OmniGen2": "time_caption_embed. ref_image_patch_embedder.",
        "FLUX.1 Depth or Canny": "guidance_in. vector_in. img_in.weight:128"
        " | time_text_embed.guidance_embedder. x_embedder.weight:128",
        "Cosmos Predict": "blocks.0.adaln_modulation_self_attn. !llm_adapter."
        " | time_embed.t_embedder. patch_embed.proj.",
        "the first stage of Stable Cascade": "clf. clip_txt_mapper.",
        "the second stage of Stable Cascade": "clf. clip_mapper.",
    },
    REFINER: {"": "conditioner.embedders.0.model."},
    "is {}: picowatch draws it from a diffusers folder only. Get that instead.": {
        "HunyuanImage (hunyuanvideo-community/HunyuanImage-2.1-Diffusers)": f"{_TOKENS} byt5_in."
        " | context_embedder.token_refiner. time_guidance_embed.",
        "HiDream-I1 (HiDream-ai/HiDream-I1-Full)": "caption_projection. double_stream_blocks.",
        "Ovis-Image (AIDC-AI/Ovis-Image-7B)": "double_blocks.0.img_mlp.gate_proj."
        " | context_embedder_norm.",
        "Ideogram 4 (CalamitousFelicitousness/Ideogram-4-bf16-Diffusers)": "llm_cond_proj.",
        "LongCat-Image (meituan-longcat/LongCat-Image)": "double_blocks. txt_in.weight:3584"
        f" !{_TOKENS} | time_embed.timestep_embedder. context_embedder.weight:3584",
        "Bria FIBO (briaai/FIBO)": "time_embed.timestep_embedder. caption_projection."
        " single_transformer_blocks. | perceiver. noise_refiner.",
        "Bria 3.2 (briaai/BRIA-3.2)": "time_embed.timestep_embedder. single_transformer_blocks.",
        "CogView (zai-org/CogView4-6B)": "time_condition_embed. patch_embed.text_proj.",
        "Kandinsky 5 (kandinskylab/Kandinsky-5.0-T2I-Lite-sft-Diffusers)": "visual_embeddings."
        " pooled_text_embeddings.",
        "PRX (Photoroom/prx-1024-t2i-beta)": "blocks.0.attention.txt_kv_proj.",
        "JoyImage-Edit (jdopensource/JoyAI-Image-Edit-Diffusers)": "double_blocks.0.attn."
        "img_attn_qkv.",
        "Nucleus-Image (NucleusAI/NucleusMoE-Image)": "transformer_blocks.0.encoder_proj.",
        "HunyuanDiT (Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers)": "mlp_t5.",
        "Z-Image Omni (Tongyi-MAI/Z-Image-Omni-Base)": "siglip_embedder.",
        "AuraFlow (fal/AuraFlow-v0.3)": "double_layers.",
        "AuraFlow (fal/AuraFlow)": "joint_transformer_blocks.",
        "Sana (Efficient-Large-Model/Sana_1600M_1024px_diffusers)": "attention_y_norm.",
        "Sana (Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers)": "caption_norm.",
        "PixArt (PixArt-alpha/PixArt-Sigma-XL-2-1024-MS)": "t_block."
        " | adaln_single. pos_embed.proj.",
    },
    "is {}, a model for videos: picowatch draws pictures.": {
        "FLUX.3": "early_stream_modulations.video.",
        "HunyuanVideo": f"{_TOKENS} | context_embedder.token_refiner.",
        "Wan": "head.modulation | condition_embedder.time_proj.",
        "LTX": "patchify_proj. | time_embed.emb. caption_projection.",
        "Mochi": "t5_yproj. | time_embed.pooler.",
        "CogVideoX": "patch_embed.text_proj. time_embedding.",
        "Cosmos": "blocks.block0.blocks.",
        "MiniMax H3": "video_patch_proj.",
    },
    "is {}, a model for sound: picowatch draws pictures.": {
        "Stable Audio": "transformer.rotary_pos_emb. to_timestep_embed.",
        "ACE-Step": "genre_embedder.",
    },
}


def known_name(header: Header, prefixes: tuple[str, ...]) -> str:
    """Return why a model is not drawn, as a sentence's end, or ""; names may have `prefixes`."""
    for says, models in _KNOWN.items():
        for name, signs in models.items():
            if any(header.shows(signs, prefix) for prefix in prefixes):
                return says.format(name, diffusers=diffusers_here())
    return ""
