"""Samplers, schedule types and predictions: A1111's names, forgiving look-up.

To add a sampler, add its row to `SAMPLERS`, and its class to `_KINDS` in engine/samplers.py.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from picowatch.errors import ValueInvalid
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import did_you_mean, listed

AUTOMATIC = "automatic"

# Our name to what A1111 and its readers show. "SGM Uniform" is diffusers'
# timestep_spacing="trailing"; "DDIM" is "leading", which the folders of Stable Diffusion 1.x say.
# "Simple" is "SGM Uniform" for Stable Diffusion, and the one schedule of families with a flow.
SCHEDULE_TYPES = {
    "karras": "Karras",
    "exponential": "Exponential",
    "beta": "Beta",
    "uniform": "Uniform",
    "sgm_uniform": "SGM Uniform",
    "leading": "DDIM",
    "simple": "Simple",
    "kl_optimal": "KL Optimal",
    "align_your_steps": "Align Your Steps",
}
SIMPLE = "simple"
_SCHEDULE_ALIASES = {
    "ddim": "leading",
    "ddimuniform": "leading",
    "auto": AUTOMATIC,
    "normal": "uniform",
    "turbo": "simple",
    "ays": "align_your_steps",
}

# What a UNet was trained to predict: our name to other programs' words. "Zero Terminal SNR" is
# A1111's. Epsilon is never trained so: to call pure noise noise teaches nothing.
PREDICTIONS = {
    "epsilon": ("eps", "noise"),
    "v": ("v_prediction", "v_pred", "velocity"),
    "v_zero_snr": (
        *("zero_snr", "zsnr", "ztsnr", "zero_terminal_snr"),
        *("v_zsnr", "v_ztsnr", "v_zero_terminal_snr", "v_prediction_zero_snr", "v_pred_zsnr"),
    ),
}
_PREDICTION_ALIASES = ("auto", "default")  # of automatic

_NOISE_LEVELS = ("karras", "exponential", "beta", "kl_optimal", "align_your_steps")
_SIGMAS = (*_NOISE_LEVELS, "uniform", "sgm_uniform", "leading")
# DPMSolverSinglestep, one of the two classes that can be DPM++ SDE, has no timestep_spacing.
_SINGLESTEP = (*_NOISE_LEVELS, "uniform")
_STEPS_ONLY = ("uniform", "sgm_uniform", "leading")


@dataclass(frozen=True, slots=True)
class KnownSampler:
    """A sampler: A1111's name, the schedule types it takes, the one "automatic" means.

    `aliases` are diffusers' class names (without "Scheduler"), and others that no rule gives. All
    are compared as `_squeezed` writes them: case, spaces, dots and underscores do not count.
    `evaluations` of the model are made in each step but the last, which has one.
    `reaches_zero_snr`: it can begin with pure noise, as checkpoints of zero terminal SNR need it,
    since its class in diffusers takes `rescale_betas_zero_snr`.
    """

    name: str
    schedule_types: tuple[str, ...]
    automatic: str
    aliases: tuple[str, ...] = ()
    evaluations: int = 1
    reaches_zero_snr: bool = True

    @property
    def spellings(self) -> tuple[str, ...]:
        """The name and its aliases; ComfyUI's `euler_ancestral`, k-diffusion's with `k_`."""
        plain = self.name.lower().replace("++", "pp").replace("dpm2", "dpm_2").replace(" ", "_")
        short = dict.fromkeys((plain, re.sub("_a$", "_ancestral", plain)))
        theirs = (f"{before}{name}" for name in short for before in ("", "k_"))
        on_gpu = (f"{plain}_gpu",) if "_sde" in plain else ()
        return (self.name, *self.aliases, *theirs, *on_gpu)


SAMPLERS = (
    KnownSampler("DPM++ 2M", _SIGMAS, "karras", ("DPMSolverMultistep", "dpm2m")),
    KnownSampler("DPM++ 2M SDE", _SIGMAS, "exponential", ("dpm2msde",)),
    KnownSampler("DPM++ 2M SDE Heun", _SIGMAS, "exponential"),
    KnownSampler("Euler", _SIGMAS, "uniform", ("EulerDiscrete",)),
    KnownSampler("Euler a", _STEPS_ONLY, "uniform", ("EulerAncestralDiscrete",)),
    KnownSampler(
        "Heun", _SIGMAS, "uniform", ("HeunDiscrete",), evaluations=2, reaches_zero_snr=False
    ),
    KnownSampler("LMS", _SIGMAS, "uniform", ("LMSDiscrete",), reaches_zero_snr=False),
    KnownSampler(
        "DPM2", _SIGMAS, "karras", ("KDPM2Discrete",), evaluations=2, reaches_zero_snr=False
    ),
    KnownSampler(
        "DPM2 a",
        _SIGMAS,
        "karras",
        ("KDPM2AncestralDiscrete",),
        evaluations=2,
        reaches_zero_snr=False,
    ),
    KnownSampler(
        "DPM++ SDE",
        _SINGLESTEP,
        "karras",
        ("DPMSolverSDE", "DPMSolverSinglestep"),
        reaches_zero_snr=False,
    ),
    KnownSampler("DDIM", _STEPS_ONLY, "uniform"),
    KnownSampler("DDPM", _STEPS_ONLY, "uniform"),
    KnownSampler("SA-Solver", _SIGMAS, "uniform", ("SASolver",), reaches_zero_snr=False),
    KnownSampler("DEIS", _SIGMAS, "uniform", ("DEISMultistep",), reaches_zero_snr=False),
    KnownSampler("UniPC", _SIGMAS, "uniform", ("UniPCMultistep", "uni_pc", "uni_pc_bh2")),
    KnownSampler("PNDM", _STEPS_ONLY, "uniform", ("PLMS",), reaches_zero_snr=False),
    KnownSampler("LCM", _STEPS_ONLY, "uniform"),
    KnownSampler("TCD", _STEPS_ONLY, "uniform"),
)
DEFAULT_SAMPLER = "DPM++ 2M Karras"

# A1111's samplers that picowatch does not have, and what comes closest.
_MISSING = {
    "DPM fast": ("DPM++ 2M", ("dpm_fast", "k_dpm_fast")),
    "DPM++ 2S a": ("Euler a", ("dpmpp_2s_ancestral", "k_dpmpp_2s_ancestral", "k_dpmpp_2s_a")),
    "DPM++ 3M SDE": ("DPM++ 2M SDE", ("dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "k_dpmpp_3m_sde")),
    "DPM adaptive": ("DPM++ 2M", ("dpm_adaptive", "k_dpm_ad", "dpm_ad")),
    "Restart": ("Heun", ()),
}


class SamplerUnknown(ValueInvalid):
    """No sampler of this name; the text says what would do.

    `instead` is the one that comes closest, "" where none does.
    """

    def __init__(self, message: str, instead: str = "") -> None:
        super().__init__(message)
        self.instead = instead


class ScheduleUnknown(ValueInvalid):
    """No schedule type of this name, or none that this sampler takes."""


def find_sampler(written: str) -> tuple[KnownSampler, str | None]:
    """The sampler somebody means, and the schedule type if the name holds one.

    "DPM++ 2M Karras", "dpmpp_2m_karras" and "DPMSolverMultistepScheduler" all mean DPM++ 2M;
    the first two say Karras, too. Raises SamplerUnknown.
    """
    squeezed = _squeezed(written)
    for ending, schedule_type in [("", None), *_SCHEDULE_ENDINGS]:
        sampler = _BY_NAME.get(squeezed.removesuffix(ending)) if squeezed.endswith(ending) else None
        if sampler:
            return sampler, schedule_type
    raise _unknown_sampler(written)


def find_schedule_type(written: str) -> str:
    """The schedule type somebody means, or "automatic". Raises ScheduleUnknown."""
    found = _BY_SCHEDULE_TYPE.get(_squeezed(written))
    if found is None:
        raise ScheduleUnknown(_unknown("schedule type", written, SCHEDULE_TYPES))
    return found


def decide_schedule_type(sampler: KnownSampler, schedule_type: str) -> str:
    """What "automatic" means for this sampler; any other type it takes as it is.

    Raises ScheduleUnknown for a type the sampler does not take.
    """
    if schedule_type == AUTOMATIC:
        return sampler.automatic
    if schedule_type == SIMPLE:
        schedule_type = "sgm_uniform"
    if schedule_type in sampler.schedule_types:
        return schedule_type
    takes = listed([AUTOMATIC, *sampler.schedule_types])
    raise ScheduleUnknown(
        f"{sampler.name} does not take the schedule type '{schedule_type}': it takes {takes}."
    )


def check_flow_schedule(schedule_type: str, family: str) -> None:
    """Families with a flow have their own schedule alone. Raises ScheduleUnknown."""
    if schedule_type not in (AUTOMATIC, SIMPLE):
        raise ScheduleUnknown(
            f"{family} does not take the schedule type '{schedule_type}': it has a schedule of its "
            f"own. Remove it, or write {SIMPLE}."
        )


def find_prediction(written: str) -> str:
    """The prediction somebody means, "" for automatic. Raises ValueInvalid."""
    found = _BY_PREDICTION.get(_squeezed(written))
    if found is None:
        raise ValueInvalid(_unknown("prediction", written, PREDICTIONS))
    return found


def accepted_predictions() -> list[str]:
    """What means a prediction, in lower case and without what does not count."""
    return list(_BY_PREDICTION)


def accepted_names() -> tuple[list[str], list[str]]:
    """What means a sampler, and what means a schedule type, alone or after a sampler's name.

    In lower case, and without what does not count.
    """
    return list(_BY_NAME), list(_BY_SCHEDULE_TYPE)


def sampler_named(name: str) -> KnownSampler:
    """The sampler with exactly A1111's name, as an ImageRequest holds it."""
    return next(sampler for sampler in SAMPLERS if sampler.name == name)


def _squeezed(name: str) -> str:
    """The letters, digits and pluses of a name, in lower case, without "scheduler"."""
    letters = re.sub(r"[^a-z0-9+]", "", name.casefold())
    return letters.removesuffix("scheduler").replace("++", "pp")


def _unknown_sampler(written: str) -> SamplerUnknown:
    squeezed = _squeezed(written)
    names = listed([sampler.name for sampler in SAMPLERS], most=len(SAMPLERS))
    for ending in ("", *(ending for ending, _ in _SCHEDULE_ENDINGS)):
        for name, (closest, aliases) in _MISSING.items():
            if squeezed.removesuffix(ending) in map(_squeezed, (name, *aliases)):
                return SamplerUnknown(
                    f"the sampler {name} is not supported; {closest} comes closest. "
                    f"The samplers are {names}.",
                    closest,
                )
    for ending, kind in _SCHEDULE_ENDINGS:
        if squeezed == ending:
            return SamplerUnknown(
                f"'{shown(written)}' is a schedule type, not a sampler. Write "
                f"schedule_type: {kind}, or name a sampler before it. The samplers are {names}."
            )
    known = [spelling for s in SAMPLERS for spelling in s.spellings]
    known += [f"{s.name} {SCHEDULE_TYPES[kind]}" for s in SAMPLERS for kind in s.schedule_types]
    meant = did_you_mean(written, known)
    return SamplerUnknown(f"unknown sampler '{shown(written)}'. {meant}The samplers are {names}.")


def _unknown(what: str, written: str, known: Iterable[str]) -> str:
    names = [AUTOMATIC, *known]
    meant = did_you_mean(written, names)
    return f"unknown {what} '{shown(written)}'. {meant}The {what}s are {listed(names)}."


_BY_SCHEDULE_TYPE = {_squeezed(name): name for name in (*SCHEDULE_TYPES, AUTOMATIC)}
_BY_SCHEDULE_TYPE |= _SCHEDULE_ALIASES
# The longest first: "sgm_uniform" ends in "uniform".
_SCHEDULE_ENDINGS = [
    (ending, _BY_SCHEDULE_TYPE[ending])
    for ending in sorted(_BY_SCHEDULE_TYPE, key=len, reverse=True)
    if ending != AUTOMATIC
]
_BY_NAME = {_squeezed(name): s for s in SAMPLERS for name in s.spellings}
_BY_PREDICTION = {_squeezed(one): "" for one in (AUTOMATIC, *_PREDICTION_ALIASES)} | {
    _squeezed(one): name for name, aliases in PREDICTIONS.items() for one in (name, *aliases)
}
