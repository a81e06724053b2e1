"""FLUX.3 klein and its base."""

from picowatch.families import row

_GUIDANCE = "cfg_rescale", "cfg_start", "cfg_end"
_DISTILLED = "Flux3DistilledModularPipeline"

_LAYERS = f"""
    qkv={row.QKV} q_proj=attn_to_q k_proj=attn_to_k v_proj=attn_to_v attn_out=attn_to_out_0
    mlp_in=ff_linear_in mlp_out=ff_linear_out
"""
_BLOCKS: row.Blocks = {
    ("content_mode_blocks_image", "mode_blocks_image"): _LAYERS,
    ("content_mode_blocks_image_cond", "mode_blocks_image_cond"): _LAYERS,
    ("txt_mode_blocks", "txt_mode_blocks"): _LAYERS,
    ("single_blocks", "single_transformer_blocks"): _LAYERS,
    row.OUTSIDE: """
        emb_in_image=x_embedders_image emb_in_image_cond=x_embedders_image_cond
        txt_in=context_embedder final_layer_image_linear=proj_out
        final_layer_image_adaLN_modulation_1=norm_out_linear
        time_in_in_layer=timestep_embedder_linear_1 time_in_out_layer=timestep_embedder_linear_2
        ref_time_in_in_layer=target_timestep_embedder_linear_1
        ref_time_in_out_layer=target_timestep_embedder_linear_2
    """
    + " ".join(
        f"{stream}_stream_modulations_{mode}_lin={stream}_stream_modulations_{mode}_linear"
        for stream in ("early", "single")
        for mode in ("image", "image_cond", "txt")
    ),
}

# Qwen3-VL reads the prompt, and the transformer takes eight of its layers and the references.
FLUX3 = row.Family(
    key="flux3",
    name="FLUX.3",
    pipelines=row.Pipelines(text="Flux3ModularPipeline", edit="Flux3ModularPipeline"),
    guidance=row.GUIDER,
    lacks=row.without(row.LACKS, *_GUIDANCE) | row.ONLY_EDITS | row.NO_CACHE,
    variants={
        # It was distilled to jump from one noise level to the next.
        "klein": row.flow_variant(
            16,
            guided=False,
            lacks=dict.fromkeys(("cfg_scale", *_GUIDANCE), "it draws without guidance"),
            references=row.LOOKS_AT_TEN,
            samplers=("Euler",),
            pipelines=row.Pipelines(text=_DISTILLED, edit=_DISTILLED),
            hub="black-forest-labs/flux-3-image-klein",
            sign="ref_time_in. | target_timestep_embedder.",
            config={"transformer/flow_map": True},
        ),
        "klein base": row.flow_variant(
            50,
            4,
            references=row.LOOKS_AT_TEN,
            hub="black-forest-labs/flux-3-image-klein-base",
            config={},
        ),
    },
    hub="black-forest-labs/flux-3-image-klein",
    # The chat template has eight tokens.
    texts=row.Reading(encode="blocks", reads={"tokenizer": 8192 - 8}, count="processor"),
    encoder_layers=33,  # of 36
    parts=row.parts_of(
        "Flux3Transformer2DModel",
        row.KL_FLUX2,
        ("Qwen3VLForConditionalGeneration", ("Qwen3VLProcessor", *row.QWEN_WORDS)),
    ),
    optional=("scheduler",),  # its folders have none, because its pipeline has its own
    signs=("early_stream_modulations.image.",),
    vaes=(row.FLUX2_VAE,),
    lora_blocks=_BLOCKS,
    lora_sides=(3072,),
    lora_marks=("flux3", "flux.3", "flux-3"),
)
