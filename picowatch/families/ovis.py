"""Ovis-Image, by AIDC-AI."""

from picowatch.families.row import (
    ALONE,
    FLUX_VAE,
    FROM_TEXT,
    KL,
    NO_CACHE,
    QWEN3_ANY,
    SIXTEEN,
    Family,
    Pipelines,
    Reading,
    flow_variant,
    parts_of,
)

# Qwen3 reads the prompt, after an instruction.
OVIS_IMAGE = Family(
    key="ovis_image",
    name="Ovis-Image",
    pipelines=Pipelines(text="OvisImagePipeline"),
    lacks=FROM_TEXT | NO_CACHE,
    # Its default, "", would be a second negative prompt beside the one that was read.
    inputs={"negative_prompt": None},
    variants={"": flow_variant(50, 5)},
    hub="AIDC-AI/Ovis-Image-7B",
    preview="flux",
    # The chat template ends with nine tokens, and the instruction before the prompt is left out.
    texts=Reading(options=ALONE, reads={"tokenizer": 256 - 9}),
    parts=parts_of("OvisImageTransformer2DModel", KL, QWEN3_ANY),
    vaes=(SIXTEEN, FLUX_VAE),
    loras=False,
    lora_marks=("ovis-image", "ovis_image"),
)
