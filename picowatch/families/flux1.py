"""FLUX.1, and Chroma, which was made from it."""

from picowatch.families import row

_DOUBLE = f"""
    {row.DOUBLE} img_mlp_0=ff_net_0_proj img_mlp_2=ff_net_2
    txt_mlp_0=ff_context_net_0_proj txt_mlp_2=ff_context_net_2
"""
_SINGLE = f"""
    linear1={row.QKV},proj_mlp processor_qkv={row.QKV} linear2=proj_out processor_proj=proj_out
"""
_FLUX_BLOCKS: row.Blocks = {
    ("double_blocks", "transformer_blocks"): f"""
        {_DOUBLE} img_mod_lin=norm1_linear txt_mod_lin=norm1_context_linear
    """,
    ("single_blocks", "single_transformer_blocks"): f"{_SINGLE} modulation_lin=norm_linear",
    row.OUTSIDE: f"""
        {row.AROUND_BLOCKS} final_layer_adaLN_modulation_1=norm_out_linear
        time_in_in_layer=time_text_embed_timestep_embedder_linear_1
        time_in_out_layer=time_text_embed_timestep_embedder_linear_2
        guidance_in_in_layer=time_text_embed_guidance_embedder_linear_1
        guidance_in_out_layer=time_text_embed_guidance_embedder_linear_2
        vector_in_in_layer=time_text_embed_text_embedder_linear_1
        vector_in_out_layer=time_text_embed_text_embedder_linear_2
    """,
}
# A network computes what FLUX.1's modulations do.
_CHROMA_BLOCKS: row.Blocks = {
    ("double_blocks", "transformer_blocks"): _DOUBLE,
    ("single_blocks", "single_transformer_blocks"): _SINGLE,
    ("distilled_guidance_layer_layers",) * 2: "in_layer=linear_1 out_layer=linear_2",
    row.OUTSIDE: f"""
        {row.AROUND_BLOCKS} distilled_guidance_layer_in_proj distilled_guidance_layer_out_proj
    """,
}


def _sign(theirs: str, ours: str, inputs: int) -> str:
    """Return the sign of what a FLUX.1 embeds, and of the width of the image's latents."""
    return f"{theirs} img_in.weight:{inputs} | time_text_embed.{ours} x_embedder.weight:{inputs}"


# https://huggingface.co/lodestones/Chroma: FLUX.1 schnell with T5 alone, and guidance.
CHROMA = row.Family(
    key="chroma",
    name="Chroma",
    pipelines=row.all_three("Chroma"),
    lacks=row.LACKS,
    variants={"": row.flow_variant(40, 3)},
    hub="lodestones/Chroma1-HD",
    texts=row.Reading(options=row.ALONE, results=("prompt_embeds", "", "prompt_attention_mask")),
    parts=row.parts_of("ChromaTransformer2DModel", row.KL, row.T5),
    signs=("distilled_guidance_layer.",),
    encoders={"text_encoder": "T5 XXL"},
    vaes=row.FLUX_VAES,
    lora_blocks=_CHROMA_BLOCKS,
    lora_sides=(5120,),  # of what guides it: other layers are FLUX.1's
    lora_marks=("chroma",),
)

# CLIP's pooled text and T5 read the prompt; dev was trained with guidance as an input.
FLUX = row.Family(
    key="flux",
    name="FLUX.1",
    pipelines=row.all_three("Flux"),
    guidance={**row.GUIDANCE, **row.TRUE_CFG_SCALE},
    lacks=row.FLOW_LACKS,
    variants={
        # Krea and Kontext look like dev, which has what embeds guidance, too.
        "dev": row.flow_variant(
            28,
            guidance=3.5,
            hub="black-forest-labs/FLUX.1-dev",
            sign=_sign("guidance_in.", "guidance_embedder.", 64),
            config={"transformer/guidance_embeds": True},
        ),
        "Krea": row.flow_variant(28, guidance=4.5, like="dev", word="krea"),
        "schnell": row.flow_variant(
            4,
            guided=False,
            lacks=row.NO_GUIDANCE,
            tokens=256,  # half as many as dev (its model card)
            sign=_sign("vector_in.", "text_embedder.", 64),
        ),
        "Fill": row.flow_variant(
            50,
            guidance=30,
            lacks={"cfg_scale": "Fill follows the prompt by guidance alone"},
            fills=True,
            starts=row.NOISE,
            hub="black-forest-labs/FLUX.1-Fill-dev",
            pipelines=row.Pipelines(text="FluxFillPipeline", mask="FluxFillPipeline"),
            sign=_sign("guidance_in.", "guidance_embedder.", 384),
        ),
        "Kontext": row.flow_variant(
            28,
            guidance=2.5,
            lacks=row.ONLY_EDITS,
            references=row.References(most=1, required=True),
            configs="dev",
            hub="black-forest-labs/FLUX.1-Kontext-dev",
            pipelines=row.Pipelines(text="FluxKontextPipeline", edit="FluxKontextPipeline"),
            like="dev",
            word="kontext",
            config={},
        ),
    },
    hub="black-forest-labs/FLUX.1-schnell",
    texts=row.Reading(  # CLIP gives only the pooled output, from the first 77 tokens
        options={"max_sequence_length": 512},
        results=("prompt_embeds", "pooled_prompt_embeds"),
        reads={"tokenizer_2": 512},
    ),
    parts=row.parts_of("FluxTransformer2DModel", row.KL, row.CLIP, row.T5),
    signs=("double_blocks.0.img_attn.", "single_transformer_blocks.0.proj_mlp."),
    encoders={"text_encoder": "CLIP L", "text_encoder_2": "T5 XXL"},
    vaes=row.FLUX_VAES,
    vae_assets="flux",
    vae_file=row.FLUX_VAE_FILE,
    alike=True,
    lora_blocks=_FLUX_BLOCKS,
    lora_sides=(3072,),
    lora_marks=("flux",),
)
