"""Z-Image, and Lumina 2, whose architecture it has."""

from picowatch.families import row

_REFINED = [(blocks, blocks) for blocks in ("layers", "noise_refiner", "context_refiner")]
_Z_IMAGE_LAYERS = """
    attention_qkv=attention_to_q,attention_to_k,attention_to_v attention_out=attention_to_out_0
    feed_forward_w1 feed_forward_w2 feed_forward_w3 adaLN_modulation_0
"""
_Z_IMAGE_BLOCKS: row.Blocks = {
    **dict.fromkeys(_REFINED, _Z_IMAGE_LAYERS),
    row.OUTSIDE: """
        t_embedder_mlp_0 t_embedder_mlp_2 cap_embedder_1 x_embedder=all_x_embedder_2-1
        final_layer_linear=all_final_layer_2-1_linear
        final_layer_adaLN_modulation_1=all_final_layer_2-1_adaLN_modulation_1
    """,
}
_LUMINA2_LAYERS = f"""
    attention_qkv={row.QKV} attention_out=attn_to_out_0 feed_forward_w1=feed_forward_linear_1
    feed_forward_w2=feed_forward_linear_2 feed_forward_w3=feed_forward_linear_3
    adaLN_modulation_1=norm1_linear
"""
_LUMINA2_BLOCKS: row.Blocks = {
    **dict.fromkeys(_REFINED, _LUMINA2_LAYERS),
    row.OUTSIDE: """
        x_embedder cap_embedder_1=time_caption_embed_caption_embedder_1
        t_embedder_mlp_0=time_caption_embed_timestep_embedder_linear_1
        t_embedder_mlp_2=time_caption_embed_timestep_embedder_linear_2
        final_layer_adaLN_modulation_1=norm_out_linear_1 final_layer_linear=norm_out_linear_2
    """,
}

# https://arxiv.org/abs/2511.22699: Qwen3 reads the prompt.
Z_IMAGE = row.Family(
    key="z_image",
    name="Z-Image",
    pipelines=row.all_three("ZImage"),
    guidance=row.CFG_SCALE_LESS_ONE,
    lacks=row.LACKS,
    variants={
        "Turbo": row.flow_variant(8, guided=False, like="Base", word="turbo"),
        "Base": row.flow_variant(50, 5),  # its card's guidance of 4 counts from 0
    },
    hub="Tongyi-MAI/Z-Image-Turbo",
    # The chat template has eight tokens.
    texts=row.Reading(options=row.ALONE, reads={"tokenizer": 512 - 8}),
    drawing=540,
    parts=row.parts_of("ZImageTransformer2DModel", row.KL, row.QWEN3_ANY),
    signs=("layers.0.adaLN_modulation.0.", "cap_pad_token"),
    encoders={"text_encoder": "Qwen3 4B"},
    vaes=row.FLUX_VAES,
    vae_assets="flux",
    vae_file=row.FLUX_VAE_FILE,
    alike=True,
    lora_blocks=_Z_IMAGE_BLOCKS,
    lora_sides=(3840,),
    lora_marks=("zimage", "z-image"),
)

# https://arxiv.org/abs/2503.21758: Gemma 2 reads the prompt.
LUMINA2 = row.Family(
    key="lumina2",
    name="Lumina 2",
    pipelines=row.Pipelines(text="Lumina2Pipeline"),
    variants={"": row.flow_variant(50, 4, sign="!cap_pad_token")},
    hub="Alpha-VLLM/Lumina-Image-2.0",
    texts=row.Reading(
        # diffusers' default, which it writes before prompts, but not before negative prompts.
        preamble=(
            "You are an assistant designed to generate superior images with the superior degree of "
            "image-text alignment based on textual prompts or user prompts. <Prompt Start> "
        ),
        encode="lumina2",
        reads={"tokenizer": 256},
    ),
    more_folders=("Lumina2Text2ImgPipeline",),  # diffusers' first name for it
    parts=row.parts_of("Lumina2Transformer2DModel", row.KL, row.GEMMA2),
    signs=("cap_embedder.", "time_caption_embed.caption_embedder."),
    encoders={"text_encoder": "Gemma 2 2B"},
    vaes=row.FLUX_VAES,
    lora_blocks=_LUMINA2_BLOCKS,
    lora_sides=(2304,),
    lora_marks=("lumina",),
)
