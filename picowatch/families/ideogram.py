"""Ideogram 4, by Ideogram."""

from picowatch.families import row

_TRANSFORMER = "Ideogram4Transformer2DModel"
_BLOCKS: row.Blocks = {
    ("layers", "layers"): """
        attention_qkv=attention_to_q,attention_to_k,attention_to_v attention_o=attention_to_out_0
        feed_forward_w1 feed_forward_w2 feed_forward_w3 adaln_modulation
    """,
    row.OUTSIDE: """
        input_proj llm_cond_proj adaln_proj final_layer_linear final_layer_adaln_modulation
        t_embedding_mlp_in t_embedding_mlp_out
    """,
}

# Qwen3-VL reads the prompt, of which the transformer takes thirteen layers. A second transformer
# draws without the prompt, and guidance leads away from that.
IDEOGRAM4 = row.Family(
    key="ideogram4",
    name="Ideogram 4",
    pipelines=row.Pipelines(text="Ideogram4Pipeline"),
    native_size=2048,
    lacks=row.FROM_TEXT | row.NO_NEGATIVE | row.NO_CACHE,
    inputs={"guidance_schedule": None},  # its own is for 48 steps alone
    variants={"": row.flow_variant(48, 7)},
    hub="CalamitousFelicitousness/Ideogram-4-bf16-Diffusers",
    channels_last=True,
    # The chat template has eight tokens.
    texts=row.Reading(encode="ideogram4", answers=True, reads={"tokenizer": 2048 - 8}),
    # The features of a text are zeros over all places of the picture, and wide.
    drawing=1700,
    parts={
        **row.parts_of(_TRANSFORMER, row.KL_FLUX2, ("Qwen3VLModel", row.QWEN_WORDS)),
        row.UNCONDITIONAL: (_TRANSFORMER,),
    },
    vaes=(row.FLUX2_VAE,),
    lora_sides=(4608,),
    lora_blocks=_BLOCKS,
    lora_marks=("ideogram",),
)
