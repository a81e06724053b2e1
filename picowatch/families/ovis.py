"""Ovis-Image, by AIDC-AI."""

from picowatch.families import row

# Qwen3 reads the prompt, after an instruction.
OVIS_IMAGE = row.Family(
    key="ovis_image",
    name="Ovis-Image",
    pipelines=row.Pipelines(text="OvisImagePipeline"),
    lacks=row.FROM_TEXT,
    # Its default, "", would be a second negative prompt beside the prompt that was read.
    inputs={"negative_prompt": None},
    variants={"": row.flow_variant(50, 5)},
    hub="AIDC-AI/Ovis-Image-7B",
    # The chat template ends with nine tokens, and the instruction before the prompt is left out.
    texts=row.Reading(options=row.ALONE, reads={"tokenizer": 256 - 9}),
    parts=row.parts_of("OvisImageTransformer2DModel", row.KL, row.QWEN3_ANY),
    vaes=row.FLUX_VAES,
    loras=False,
    lora_marks=("ovis-image", "ovis_image"),
)
