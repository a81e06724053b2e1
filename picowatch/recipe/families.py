"""What recipes can say for each family of checkpoints, and what they mean if they say nothing.

Steps and guidance are those of the models' own cards and programs (docs/models.md names them);
the other facts are diffusers'. A family that is not in the table is a Stable Diffusion with a UNet,
which takes every field but `guidance`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from picowatch.recipe.fields import default_of

EULER = "Euler"
_DPM = "DPM++ 2M"
FLOW_SAMPLERS = (EULER, _DPM, "UniPC")
MAX_SIDE = 4096  # pixels, after hires


@dataclass(frozen=True, slots=True)
class Rules:
    """One family's, or one variant's.

    Sides are multiples of `multiple`, and `max_side` at most. `defaults` are the values of fields
    that a recipe leaves out. `lacks` maps fields that must stay off to the reason. `flow`: a
    pipeline of diffusers renders it, as a rule along a flow from noise to picture, with the
    samplers in `samplers` alone. `guided`: it was trained for a cfg_scale above 1. `weighs`: its
    prompts take weights and BREAK, and words that change between the steps; others get the text
    without weights. `fills`: it only redraws the
    part of a picture that a mask shows. Start images have at most `most_start_pixels`, where a
    pipeline would make larger ones smaller.
    """

    multiple: int = 8
    max_side: int = MAX_SIDE
    defaults: Mapping[str, Any] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)
    flow: bool = False
    samplers: tuple[str, ...] = ()
    guided: bool = True
    weighs: bool = True
    fills: bool = False
    most_start_pixels: int = 0

    def default(self, name: str) -> Any:
        """What a recipe gets that does not say this field."""
        return self.defaults.get(name, default_of(name))


_NO_GUIDANCE = "guidance is a number that FLUX.1 dev was trained with; use cfg_scale"
_NO_SECOND_PASS = "it cannot start from a picture"
_FLOW_LACKS = {
    "control": "ControlNets are supported for Stable Diffusion 1.x, 2.x and XL",
    "clip_skip": "its text encoders are read where it was trained to",
    "cfg_rescale": "it is for Stable Diffusion with a high cfg_scale",
    "cfg_start": "its pipeline guides all steps",
    "cfg_end": "its pipeline guides all steps",
    "prediction": "it predicts the flow from noise to picture",
    "variation_strength": "its noise is drawn by its pipeline",
    "ensd": "its noise is drawn by its pipeline",
    "tiling": "its transformer does not draw with convolutions",
}
_NO_PICTURES = dict.fromkeys(("image", "mask", "hires"), _NO_SECOND_PASS)

# Without a size: of a width that no published one has.
_KLEIN = ("klein", "klein 4B", "klein 9B")
_KLEIN_BASE = ("klein base", "klein base 4B", "klein base 9B")

UNET = Rules(lacks={"guidance": _NO_GUIDANCE})
DEMO = "demo"  # the name of the embedded model
# With a higher one, samplers that look back at earlier steps or add noise overshoot
# (assets/demo/README.md).
DEMO_RULES = replace(UNET, defaults={"cfg_scale": 4.0})


def _flow(
    steps: int,
    cfg_scale: float = 1,
    guidance: float = 0,
    *,
    multiple: int = 16,
    lacks: Mapping[str, str] | None = None,
    samplers: tuple[str, ...] = FLOW_SAMPLERS,
    denoising_strength: float | None = None,
    **others: Any,
) -> Rules:
    """The rules of a flow family; `guidance` 0 means that it has none. `others` are those of Rules.

    Those that look at the start image begin with noise, unless a recipe says otherwise.
    """
    without = _FLOW_LACKS | dict(lacks or {})
    defaults = {
        "sampler": samplers[0],
        "steps": steps,
        "cfg_scale": float(cfg_scale),
        "guidance": float(guidance),
    }
    if denoising_strength:
        defaults["denoising_strength"] = denoising_strength
    return Rules(
        multiple=multiple,
        defaults=defaults,
        lacks=without if guidance else {"guidance": _NO_GUIDANCE} | without,
        flow=True,
        samplers=samplers,
        weighs=False,
        **others,
    )


def _klein(steps: int, cfg_scale: float = 1, *, guided: bool = False) -> Rules:
    return _flow(
        steps,
        cfg_scale,
        guided=guided,
        lacks={"hires": "diffusers has no second pass for it"},
        most_start_pixels=1024 * 1024,
        denoising_strength=1.0,
    )


# By family and variant.
FLOW_RULES = {
    ("z_image", "Turbo"): _flow(8, guided=False),
    # Its card's guidance of 4, which counts from 0, plus 1.
    ("z_image", "Base"): _flow(50, 5),
    ("flux", "dev"): _flow(28, guidance=3.5),
    ("flux", "Krea"): _flow(28, guidance=4.5),
    ("flux", "schnell"): _flow(4, guided=False),
    ("flux", "Fill"): _flow(
        50,
        guidance=30,
        lacks={"cfg_scale": "Fill follows the prompt by guidance alone"},
        fills=True,
        denoising_strength=1.0,
    ),
    ("qwen_image", ""): _flow(50, 4),
    ("ernie_image", "Base"): _flow(50, 4, lacks=_NO_PICTURES),
    ("ernie_image", "Turbo"): _flow(8, guided=False, lacks=_NO_PICTURES),
    ("ovis", ""): _flow(50, 5, lacks=_NO_PICTURES),
    # Its authors' guidance of 3.5, which counts from 0, plus 1.
    ("krea2", "Raw"): _flow(52, 4.5, lacks=_NO_PICTURES),
    ("krea2", "Turbo"): _flow(8, guided=False, lacks=_NO_PICTURES),
    **dict.fromkeys((("flux2", name) for name in _KLEIN), _klein(4)),
    **dict.fromkeys((("flux2", name) for name in _KLEIN_BASE), _klein(50, 4, guided=True)),
    ("chroma", ""): _flow(40, 3),
    ("lumina2", ""): _flow(50, 4, lacks=_NO_PICTURES),
    # Sides of the table of positions: 64 or 96 patches of 16 pixels.
    ("aura_flow", ""): _flow(50, 3.5, max_side=1024, lacks=_NO_PICTURES),
    ("aura_flow", "0.3"): _flow(50, 3.5, max_side=1536, lacks=_NO_PICTURES),
    ("sana", ""): _flow(20, 4.5, multiple=32, samplers=(_DPM,), lacks=_NO_PICTURES),
    ("pixart", "Sigma"): _flow(
        20,
        4.5,
        samplers=(_DPM,),
        lacks=_NO_PICTURES | {"prediction": "its folder says what it predicts"},
    ),
    ("cogview4", ""): _flow(50, 3.5, lacks=_NO_PICTURES),
    # Sides of the table of positions: 192 patches of 16 pixels.
    ("sd3", "3 Medium"): _flow(28, 7, max_side=3072),
    ("sd3", "3.5 Medium"): _flow(40, 4.5),
    ("sd3", "3.5 Large"): _flow(28, 3.5, max_side=3072),
    ("sd3", "3.5 Large Turbo"): _flow(4, guided=False, max_side=3072),
}


def rules_of(family: str, variant: str = "") -> Rules:
    """The rules of a family's variant; of the family, where the variant makes no difference."""
    return FLOW_RULES.get((family, variant)) or FLOW_RULES.get((family, "")) or UNET


def has_rules(family: str, variant: str, *, exactly: bool = False) -> bool:
    """Whether a flow family's variant is known, or if not `exactly`, the family alone."""
    return (family, variant) in FLOW_RULES or (not exactly and (family, "") in FLOW_RULES)
