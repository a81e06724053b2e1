"""Samplers, schedule types and predictions: A1111's names, read leniently; a sampler is a row."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from picowatch.errors import ValueInvalid
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import did_you_mean, listed

AUTOMATIC = "automatic"
SIMPLE = "simple"

# Our name to what A1111 and its readers show. "SGM Uniform" is diffusers'
# timestep_spacing="trailing"; "DDIM" is "leading", which the folders of Stable Diffusion 1.x say;
# "Linspace" is in no other program.
# "Simple" is "SGM Uniform" for Stable Diffusion, and the one schedule of families with a flow.
SCHEDULE_TYPES = {
    "karras": "Karras", "exponential": "Exponential", "beta": "Beta", "uniform": "Uniform",
    "sgm_uniform": "SGM Uniform", "leading": "DDIM", "linspace": "Linspace", SIMPLE: "Simple",
    "kl_optimal": "KL Optimal", "align_your_steps": "Align Your Steps",
}  # fmt: skip
_SCHEDULE_ALIASES = {
    "ddim": "leading", "ddimuniform": "leading", "auto": AUTOMATIC, "normal": "uniform",
    "sgm": "sgm_uniform", "turbo": SIMPLE, "ays": "align_your_steps",
}  # fmt: skip
# The schedule types that choose among the training steps. The others choose noise levels.
EVEN = ("uniform", "sgm_uniform", "leading", "linspace")

# What a UNet was trained to predict: our names and other programs'; "default" and "Zero Terminal
# SNR" are A1111's. No epsilon with that: finding the noise in pure noise teaches a model nothing.
PREDICTIONS = {
    "": (AUTOMATIC, "auto", "default"),
    "epsilon": ("epsilon", "eps"),
    "v": ("v", "v_prediction", "v_pred", "velocity"),
    "v_zero_snr": ("v_zero_snr", "zero_snr", "zsnr", "ztsnr", "zero_terminal_snr"),
}


@dataclass(frozen=True, slots=True)
class KnownSampler:
    """A sampler; its names are compared without case, spaces, dots and underscores."""

    name: str  # A1111's
    scheduler: str  # the class of diffusers without "Scheduler"; DPMSolver3MSDE is ours
    automatic: str = "uniform"  # what that means for it
    aliases: tuple[str, ...] = ()  # names that `_spellings` does not derive
    options: Mapping[str, Any] = field(default_factory=dict)  # what the class is created with
    spacing: str = "linspace"  # its timestep_spacing for "uniform"
    evaluations: int = 1  # of the model in each step but the last, which has one
    noisy: bool = False  # its steps draw noise
    # It can begin with pure noise, as checkpoints of zero terminal SNR need: its class takes
    # `rescale_betas_zero_snr`.
    zero_snr: bool = True
    # The sampler that takes the same steps from one noise level to the next, if the class only
    # knows training steps.
    with_levels: str = ""
    schedule_types: tuple[str, ...] = tuple(name for name in SCHEDULE_TYPES if name != SIMPLE)

    @property
    def spellings(self) -> tuple[str, ...]:
        return (*_spellings(self.name), self.scheduler, *self.aliases)


def _spellings(name: str) -> tuple[str, ...]:
    """Return a name, and ComfyUI's and k-diffusion's: `euler_ancestral`, `sample_euler`."""
    plain = name.lower().replace("++", "pp").replace("dpm2", "dpm_2").replace(" ", "_")
    short = dict.fromkeys((plain, re.sub("_a$", "_ancestral", plain)))
    theirs = (f"{before}{spelling}" for spelling in short for before in ("", "k_", "sample_"))
    on_gpu = (f"{plain}_gpu",) if "_sde" in plain else ()
    return (name, *theirs, *on_gpu)


_SECOND_ORDER = {"solver_order": 2, "final_sigmas_type": "zero", "lower_order_final": True}
_DPM = {"algorithm_type": "dpmsolver++", **_SECOND_ORDER}
_SDE = {"algorithm_type": "sde-dpmsolver++", **_SECOND_ORDER}
_SDE_HEUN = {"solver_type": "heun", **_SDE}
_DEIS = {"algorithm_type": "deis", "solver_type": "logrho", "solver_order": 2}
# DDIM's default would clip latents to -1..1.
_UNCUT = {"clip_sample": False}
_FLOW = ("FlowMatchEulerDiscrete", "Euler FlowMatch")
_MULTISTEP = "DPMSolverMultistep"
# diffusers' DPMSolverSDEScheduler is nearer to k-diffusion's DPM++ SDE, but needs torchsde and
# draws its noise from Brownian trees of its own, not from a generator per image. This one evaluates
# the UNet once per step, A1111's twice: 40 steps here are about 20 there.
_SINGLESTEP, _SDES = "DPMSolverSinglestep", ("DPMSolverSDE", "DPM SDE")

SAMPLERS = (
    KnownSampler("DPM++ 2M", _MULTISTEP, "karras", ("dpm2m",), _DPM),
    KnownSampler("DPM++ 2M SDE", _MULTISTEP, "exponential", ("dpm2msde",), _SDE, noisy=True),
    KnownSampler("DPM++ 2M SDE Heun", _MULTISTEP, "exponential", (), _SDE_HEUN, noisy=True),
    KnownSampler("DPM++ 3M SDE", "DPMSolver3MSDE", "exponential", ("dpm3msde",), noisy=True),
    KnownSampler("Euler", "EulerDiscrete", "uniform", _FLOW, {"final_sigmas_type": "zero"}),
    KnownSampler("Euler a", "EulerAncestralDiscrete", noisy=True),
    KnownSampler("Heun", "HeunDiscrete", options=_UNCUT, evaluations=2, zero_snr=False),
    KnownSampler("LMS", "LMSDiscrete", aliases=("LMSD",), zero_snr=False),
    KnownSampler("DPM2", "KDPM2Discrete", "karras", ("KDPM2",), evaluations=2, zero_snr=False),
    KnownSampler(
        *("DPM2 a", "KDPM2AncestralDiscrete", "karras", ("KDPM2 a",)),
        evaluations=2,
        noisy=True,
        zero_snr=False,
    ),
    KnownSampler("DPM++ SDE", _SINGLESTEP, "karras", _SDES, _SDE, noisy=True, zero_snr=False),
    KnownSampler("DDIM", "DDIM", options=_UNCUT, spacing="leading", with_levels="Euler"),
    KnownSampler(
        *("DDPM", "DDPM", "uniform", (), {"variance_type": "fixed_small", **_UNCUT}, "leading"),
        noisy=True,
        with_levels="Euler a",
    ),
    KnownSampler("SA-Solver", "SASolver", noisy=True, zero_snr=False),
    KnownSampler("DEIS", "DEISMultistep", options=_DEIS, zero_snr=False),
    KnownSampler("UniPC", "UniPCMultistep", aliases=("uni_pc_bh2",), options=_SECOND_ORDER),
    KnownSampler(
        *("PNDM", "PNDM", "uniform", ("PLMS",), {"skip_prk_steps": True}, "leading"),
        zero_snr=False,
        schedule_types=EVEN,  # its formula is for steps of one length
    ),
    # The steps of these two are spread over the distillation's 50, whatever the spacing.
    KnownSampler("LCM", "LCM", options=_UNCUT, spacing="leading", noisy=True),
    KnownSampler("TCD", "TCD", options=_UNCUT, spacing="leading", noisy=True),
)
DEFAULT_SAMPLER = "DPM++ 2M Karras"
# Pure noise is a level of 4,096; other checkpoints' most is 14.6. The three spread steps over the
# levels between, where nothing is drawn: two of three steps of Karras.
SAMPLER_OF_ZERO_SNR = "Euler SGM Uniform"
WASTED_ON_PURE_NOISE = ("karras", "exponential", "beta")

# A1111's and ComfyUI's samplers that picowatch does not have, and what comes closest.
_MISSING = {
    "DPM++ 2S a": "Euler a", "DPM fast": "DPM++ 2M", "DPM adaptive": "DPM++ 2M",
    "DPM ad": "DPM++ 2M", "Restart": "Heun", "res_multistep": "DPM++ 2M",
    "res_multistep_ancestral": "Euler a", "gradient_estimation": "Euler", "heunpp2": "Heun",
    "exp_heun_2_x0": "Heun", "exp_heun_2_x0_sde": "DPM++ SDE", "ipndm": "LMS", "ipndm_v": "LMS",
    "er_sde": "DPM++ 3M SDE", "seeds_2": "DPM++ SDE", "seeds_3": "DPM++ SDE",
    "sa_solver_pece": "SA-Solver",
}  # fmt: skip


class SamplerUnknown(ValueInvalid):
    """No sampler has this name; the message lists all, and `instead` is the closest, if any."""

    def __init__(self, message: str, instead: str = "") -> None:
        super().__init__(f"{message} {THE_SAMPLERS}")
        self.message = message
        self.instead = instead


def find_sampler(written: str) -> tuple[KnownSampler, str | None]:
    """Return the sampler that a name means, and the schedule type if the name includes it.

    "DPM++ 2M Karras", "dpmpp_2m_karras" and "DPMSolverMultistepScheduler" all mean DPM++ 2M;
    the first two include Karras. Raises SamplerUnknown.
    """
    squeezed = _squeezed(written)
    for ending, schedule_type in [("", None), *_ENDINGS]:
        name = squeezed.removesuffix(ending)
        if name in _BY_NAME:
            return _BY_NAME[name], schedule_type
        if name in _BY_MISSING_NAME:
            missing, closest = _BY_MISSING_NAME[name]
            why = f"the sampler {missing} is not supported; {closest} comes closest."
            with_type = f"{closest} {SCHEDULE_TYPES.get(schedule_type or '', '')}".rstrip()
            raise SamplerUnknown(why, with_type)
    if kind := _BY_SCHEDULE_TYPE.get(squeezed):
        what = f"'{shown(written)}' is a schedule type, not a sampler."
        raise SamplerUnknown(f"{what} Write schedule_type: {kind}, or name a sampler before it.")
    known = [*SAMPLER_NAMES]
    known += [f"{s.name} {SCHEDULE_TYPES[kind]}" for s in SAMPLERS for kind in s.schedule_types]
    meant = did_you_mean(written, known)
    raise SamplerUnknown(f"unknown sampler '{shown(written)}'. {meant}".rstrip())


def find_schedule_type(written: str) -> str:
    """Return the schedule type that a name means, or "automatic". Raises ValueInvalid."""
    return _find("schedule type", written, _BY_SCHEDULE_TYPE, [AUTOMATIC, *SCHEDULE_TYPES])


def meaning_of_scheduler(written: str) -> str:
    """Return the field that "scheduler" means: ComfyUI's schedule type, or diffusers' sampler."""
    if _squeezed(written) not in _BY_SCHEDULE_TYPE:
        with suppress(ValueInvalid):
            find_sampler(written)
            return "sampler"
    return "schedule_type"


def decide_schedule_type(sampler: KnownSampler, schedule_type: str) -> str | None:
    """Return the schedule type, "automatic" resolved; None if the sampler does not take it."""
    if schedule_type == AUTOMATIC:
        return sampler.automatic
    meant = "sgm_uniform" if schedule_type == SIMPLE else schedule_type
    return meant if meant in sampler.schedule_types else None


def find_prediction(written: str) -> str:
    """Return the prediction that a name means, "" for automatic. Raises ValueInvalid."""
    return _find("prediction", written, _BY_PREDICTION, [n for n, *_ in PREDICTIONS.values()])


def _find(what: str, written: str, known: Mapping[str, str], names: Sequence[str]) -> str:
    found = known.get(_squeezed(written))
    if found is None:
        meant = did_you_mean(written, names)
        raise ValueInvalid(
            f"unknown {what} '{shown(written)}'. {meant}The {what}s are {listed(names)}."
        )
    return found


def sampler_named(name: str) -> KnownSampler:
    """Return the sampler with exactly this name, as an ImageRequest holds it."""
    return next(sampler for sampler in SAMPLERS if sampler.name == name)


def _squeezed(name: str) -> str:
    """Return the letters, digits and pluses of a name, in lower case, without "scheduler"."""
    letters = re.sub(r"[^a-z0-9+]", "", name.casefold())
    return letters.removesuffix("scheduler").replace("++", "pp")


THE_SAMPLERS = f"The samplers are {listed([s.name for s in SAMPLERS], most=len(SAMPLERS))}."
_BY_SCHEDULE_TYPE = {_squeezed(name): name for name in (*SCHEDULE_TYPES, AUTOMATIC)}
_BY_SCHEDULE_TYPE |= _SCHEDULE_ALIASES
# The longest first: "sgm_uniform" ends in "uniform".
_ENDINGS = [
    (ending, _BY_SCHEDULE_TYPE[ending])
    for ending in sorted(_BY_SCHEDULE_TYPE, key=len, reverse=True)
    if ending != AUTOMATIC
]
_BY_NAME = {_squeezed(name): s for s in reversed(SAMPLERS) for name in s.spellings}
_BY_MISSING_NAME = {
    _squeezed(f"{name}{more}"): (f"{missing}{more}", closest)
    for more in ("", " CFG++")
    for missing, closest in (_MISSING | {s.name: s.name for s in SAMPLERS}).items()
    for name in _spellings(missing)
}
# All names, for editors: those of samplers with the schedule types that may follow.
SAMPLER_NAMES = [spelling for sampler in SAMPLERS for spelling in sampler.spellings]
SCHEDULE_TYPE_NAMES = [AUTOMATIC, *SCHEDULE_TYPES, *_SCHEDULE_ALIASES]
PREDICTION_NAMES = [name for names in PREDICTIONS.values() for name in names]
_BY_PREDICTION = {_squeezed(name): kind for kind, names in PREDICTIONS.items() for name in names}
