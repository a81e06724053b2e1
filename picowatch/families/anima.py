"""Anima, by CircleStone Labs and Comfy Org: NVIDIA's Cosmos Predict2 for drawings."""

from picowatch.families import row

_BLOCKS: row.Blocks = {
    ("blocks", "transformer_blocks"): """
        self_attn_q_proj=attn1_to_q self_attn_k_proj=attn1_to_k self_attn_v_proj=attn1_to_v
        self_attn_output_proj=attn1_to_out_0 cross_attn_q_proj=attn2_to_q
        cross_attn_k_proj=attn2_to_k cross_attn_v_proj=attn2_to_v
        cross_attn_output_proj=attn2_to_out_0 mlp_layer1=ff_net_0_proj mlp_layer2=ff_net_2
        adaln_modulation_self_attn_1=norm1_linear_1 adaln_modulation_self_attn_2=norm1_linear_2
        adaln_modulation_cross_attn_1=norm2_linear_1 adaln_modulation_cross_attn_2=norm2_linear_2
        adaln_modulation_mlp_1=norm3_linear_1 adaln_modulation_mlp_2=norm3_linear_2
    """,
    ("llm_adapter_blocks", "text_conditioner_blocks"): """
        self_attn_q_proj self_attn_k_proj self_attn_v_proj self_attn_o_proj cross_attn_q_proj
        cross_attn_k_proj cross_attn_v_proj cross_attn_o_proj mlp_0 mlp_2
    """,
    row.OUTSIDE: """
        x_embedder_proj_1=patch_embed_proj final_layer_linear=proj_out
        final_layer_adaln_modulation_1=norm_out_linear_1
        final_layer_adaln_modulation_2=norm_out_linear_2
        llm_adapter_out_proj=text_conditioner_out_proj
        t_embedder_1_linear_1=time_embed_t_embedder_linear_1
        t_embedder_1_linear_2=time_embed_t_embedder_linear_2
    """,
}

# Qwen3 reads the prompt. `text_conditioner` maps what it makes of it, by the ids of T5's
# vocabulary, to the texts that Cosmos was trained with.
ANIMA = row.Family(
    key="anima",
    name="Anima",
    pipelines=row.Pipelines(text="AnimaModularPipeline", image="AnimaModularPipeline"),
    guidance=row.GUIDER,
    lacks=row.without(row.LACKS, "cfg_rescale", "cfg_start", "cfg_end")
    | {"mask": "its pipeline has none"},
    variants={
        # All look alike. Its card has 30 to 50 steps and 4 to 5.
        "Turbo": row.flow_variant(10, guided=False, like="", word="turbo"),
        "Aesthetic": row.flow_variant(50, 4, like="", word="aesthetic"),
        "": row.flow_variant(50, 4),
    },
    hub="circlestone-labs/Anima-Base-v1.0-Diffusers",
    # T5's ids count as much as what Qwen3 makes of the prompt, and are more.
    texts=row.Reading(encode="blocks", reads={"t5_tokenizer": 512}),
    parts={
        **row.parts_of("CosmosTransformer3DModel", row.KL_QWEN, ("Qwen3Model", row.QWEN_WORDS)),
        "t5_tokenizer": row.T5_WORDS,
        "text_conditioner": ("AnimaTextConditioner",),
    },
    signs=("llm_adapter.",),
    encoders={"text_encoder": "Qwen3 0.6B"},
    vaes=(row.QWEN_VAE,),
    vae_assets="anima",
    vae_file="Qwen-Image's VAE (qwen_image_vae.safetensors)",
    alike=True,
    lora_blocks=_BLOCKS,
    lora_sides=(1024,),  # of its texts: other sides and all names are LTX-Video's, too
    lora_marks=("anima",),
)
