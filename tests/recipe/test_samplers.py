"""Sampler names and schedule types."""

import importlib
import inspect

import pytest

from picowatch.recipe.samplers import SAMPLERS, find_sampler
from tests.recipe.reading import messages, read_one


@pytest.mark.parametrize(
    ("written", "sampler", "schedule_type"),
    [
        ("DPM++ 2M Karras", "DPM++ 2M", "karras"),
        ("dpm++ 2m", "DPM++ 2M", "karras"),
        ("dpmpp_2m", "DPM++ 2M", "karras"),
        ("DPMSolverMultistepScheduler", "DPM++ 2M", "karras"),
        ("DPM++ 2M SDE", "DPM++ 2M SDE", "exponential"),
        ("DPM++ 2M SDE Karras", "DPM++ 2M SDE", "karras"),
        ("dpmpp_2m_sde_karras", "DPM++ 2M SDE", "karras"),
        ("DPM++ 2M SGM Uniform", "DPM++ 2M", "sgm_uniform"),
        ("DPM++ 2M Simple", "DPM++ 2M", "sgm_uniform"),
        ("Euler", "Euler", "uniform"),
        ("EulerDiscreteScheduler", "Euler", "uniform"),
        ("Euler a", "Euler a", "uniform"),
        ("k_euler_a", "Euler a", "uniform"),
        ("EulerAncestralDiscrete", "Euler a", "uniform"),
        ("ddim", "DDIM", "uniform"),
        ("Uni-PC", "UniPC", "uniform"),
        ("UniPCMultistepScheduler", "UniPC", "uniform"),
        ("PLMS", "PNDM", "uniform"),
    ],
)
def test_names_of_other_tools_are_understood(
    written: str, sampler: str, schedule_type: str
) -> None:
    """A1111's, diffusers' and k-diffusion's names; without a schedule type it is automatic."""
    recipe = read_one(f"prompt: a\nsampler: {written}")
    assert (recipe.sampler, recipe.schedule_type) == (sampler, schedule_type)


def test_a_schedule_type_alone_goes_with_the_default_sampler() -> None:
    """Exponential instead of Karras, still DPM++ 2M."""
    recipe = read_one("prompt: a\nschedule_type: exponential")
    assert (recipe.sampler, recipe.schedule_type) == ("DPM++ 2M", "exponential")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "sampler: Eulr",
            "unknown sampler 'Eulr'. Did you mean 'Euler'? There are DPM++ 2M, DPM++ 2M SDE, "
            "Euler, Euler a, DDIM, UniPC and PNDM.",
        ),
        (
            "sampler: Heun Karras",
            "the sampler Heun is not supported yet. There are DPM++ 2M, DPM++ 2M SDE, Euler, "
            "Euler a, DDIM, UniPC and PNDM.",
        ),
        (
            "sampler: Euler a\nschedule_type: karras",
            "Euler a does not take the schedule type 'karras': it takes automatic, uniform and "
            "sgm_uniform.",
        ),
        (
            "sampler: Euler a Karras",
            "Euler a does not take the schedule type 'karras': it takes automatic, uniform and "
            "sgm_uniform.",
        ),
    ],
)
def test_samplers_that_do_not_go_are_explained(written: str, message: str) -> None:
    """Unknown, not yet, or not with this schedule type."""
    assert messages(f"prompt: a\n{written}") == [message]


CLASSES = {
    "DPM++ 2M": "DPMSolverMultistepScheduler",
    "DPM++ 2M SDE": "DPMSolverMultistepScheduler",
    "Euler": "EulerDiscreteScheduler",
    "Euler a": "EulerAncestralDiscreteScheduler",
    "DDIM": "DDIMScheduler",
    "UniPC": "UniPCMultistepScheduler",
    "PNDM": "PNDMScheduler",
}


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_the_table_agrees_with_diffusers(sampler: object) -> None:
    """A schedule type is in the table exactly if diffusers' class has the parameter for it."""
    (entry,) = [s for s in SAMPLERS if s is sampler]
    diffusers = importlib.import_module("diffusers")
    parameters = inspect.signature(getattr(diffusers, CLASSES[entry.name]).__init__).parameters
    for schedule_type in ("karras", "exponential", "beta"):
        has_parameter = f"use_{schedule_type}_sigmas" in parameters
        assert (schedule_type in entry.schedule_types) == has_parameter
    assert ("sgm_uniform" in entry.schedule_types) == ("timestep_spacing" in parameters)


def test_every_sampler_finds_itself() -> None:
    """The canonical name is a name of the sampler."""
    for sampler in SAMPLERS:
        assert find_sampler(sampler.name) == (sampler, None)
