"""Sampler names and schedule types."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.samplers import SAMPLERS, KnownSampler, find_sampler
from tests.recipe.reading import DEMO, messages, read_one


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
        ("dpmpp_2m_sde_gpu", "DPM++ 2M SDE", "exponential"),
        ("dpmpp_sde_gpu", "DPM++ SDE", "karras"),
        ("DPM++ 2M SDE Heun", "DPM++ 2M SDE Heun", "exponential"),
        ("dpmpp_2m_sde_heun_gpu", "DPM++ 2M SDE Heun", "exponential"),
        ("DPM++ 2M SDE Heun Karras", "DPM++ 2M SDE Heun", "karras"),
        ("k_dpmpp_2m_sde_heun", "DPM++ 2M SDE Heun", "exponential"),
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
        ("uni_pc_bh2", "UniPC", "uniform"),
        ("PLMS", "PNDM", "uniform"),
        ("Heun Karras", "Heun", "karras"),
        ("DPM2 a", "DPM2 a", "karras"),
        ("KDPM2DiscreteScheduler", "DPM2", "karras"),
        ("DPM++ SDE Exponential", "DPM++ SDE", "exponential"),
        ("LCM", "LCM", "uniform"),
        ("TCDScheduler", "TCD", "uniform"),
        ("DEIS beta", "DEIS", "beta"),
        ("Euler DDIM", "Euler", "leading"),
        ("euler_leading", "Euler", "leading"),
        ("euler_ddim_uniform", "Euler", "leading"),
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


ALL = (
    "DPM++ 2M, DPM++ 2M SDE, DPM++ 2M SDE Heun, Euler, Euler a, Heun, "
    "LMS, DPM2, DPM2 a, DPM++ SDE, DDIM, DDPM, SA-Solver, DEIS, UniPC, PNDM, LCM and TCD"
)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "sampler: Eulr",
            f"unknown sampler 'Eulr'. Did you mean 'Euler'? The samplers are {ALL}.",
        ),
        (
            "sampler: DPM fast",
            "the sampler DPM fast is not supported; DPM++ 2M comes closest. "
            f"The samplers are {ALL}.",
        ),
        (
            "sampler: dpmpp_2s_ancestral_karras",
            "the sampler DPM++ 2S a is not supported; Euler a comes closest. "
            f"The samplers are {ALL}.",
        ),
        (
            "sampler: dpmpp_3m_sde_gpu",
            "the sampler DPM++ 3M SDE is not supported; DPM++ 2M SDE comes closest. "
            f"The samplers are {ALL}.",
        ),
        (
            "sampler: k_dpm_ad",
            "the sampler DPM adaptive is not supported; DPM++ 2M comes closest. "
            f"The samplers are {ALL}.",
        ),
        (
            "sampler: Euler a\nschedule_type: karras",
            "Euler a does not take the schedule type 'karras': it takes automatic, uniform, "
            "sgm_uniform and leading.",
        ),
        (
            "sampler: Euler a Karras",
            "Euler a does not take the schedule type 'karras': it takes automatic, uniform, "
            "sgm_uniform and leading.",
        ),
    ],
)
def test_samplers_that_do_not_go_are_explained(written: str, message: str) -> None:
    """Unknown, not supported, or not with this schedule type."""
    assert messages(f"prompt: a\n{written}") == [message]


# The file of each sampler's class: reading it needs none of the libraries that two of them need.
FILES = {
    "DPM++ 2M": "dpmsolver_multistep",
    "DPM++ 2M SDE": "dpmsolver_multistep",
    "DPM++ 2M SDE Heun": "dpmsolver_multistep",
    "Euler": "euler_discrete",
    "Euler a": "euler_ancestral_discrete",
    "Heun": "heun_discrete",
    "LMS": "lms_discrete",
    "DPM2": "k_dpm_2_discrete",
    "DPM2 a": "k_dpm_2_ancestral_discrete",
    "DPM++ SDE": "dpmsolver_singlestep",
    "DDIM": "ddim",
    "DDPM": "ddpm",
    "SA-Solver": "sasolver",
    "DEIS": "deis_multistep",
    "UniPC": "unipc_multistep",
    "PNDM": "pndm",
    "LCM": "lcm",
    "TCD": "tcd",
}


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_the_table_agrees_with_diffusers(sampler: KnownSampler) -> None:
    """A schedule type is in the table exactly if diffusers' class has the parameter for it."""
    found = find_spec("diffusers")
    assert found and found.origin
    schedulers = Path(found.origin).parent / "schedulers"
    source = (schedulers / f"scheduling_{FILES[sampler.name]}.py").read_text()
    parameters = {
        argument.arg
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
        for argument in node.args.args
    }
    for schedule_type in ("karras", "exponential", "beta"):
        has_parameter = f"use_{schedule_type}_sigmas" in parameters
        assert (schedule_type in sampler.schedule_types) == has_parameter
    for spacing in ("sgm_uniform", "leading"):
        assert (spacing in sampler.schedule_types) == ("timestep_spacing" in parameters)


def test_every_sampler_finds_itself() -> None:
    """The canonical name is a name of the sampler."""
    for sampler in SAMPLERS:
        assert find_sampler(sampler.name) == (sampler, None)


def test_a_checkpoint_of_pure_noise_refuses_samplers_that_cannot_begin_with_it() -> None:
    """With the names of those that can, before anything is loaded."""
    noob = Checkpoint("noob", 1024, zero_snr=True)
    inventory = Inventory(demo=DEMO, checkpoints=(noob,))
    assert messages("prompt: a\nsampler: Heun", inventory=inventory) == [
        "the sampler Heun cannot begin with pure noise, which the checkpoint 'noob' is trained on "
        "(zero terminal SNR). Use DPM++ 2M, DPM++ 2M SDE, DPM++ 2M SDE Heun, "
        "Euler, Euler a, DDIM, DDPM, UniPC, LCM or TCD."
    ]
    assert read_one("prompt: a\nsampler: Euler", inventory=inventory).checkpoint == "noob"


@pytest.mark.parametrize(
    ("written", "prediction"),
    [
        ("automatic", ""),
        ("Auto", ""),
        ("epsilon", "epsilon"),
        ("EPS", "epsilon"),
        ("v", "v"),
        ("v-prediction", "v"),
        ("v_prediction", "v"),
        ("vpred", "v"),
        ("v_zero_snr", "v_zero_snr"),
        ("v zero-snr", "v_zero_snr"),
        ("ztsnr", "v_zero_snr"),
        ("Zero Terminal SNR", "v_zero_snr"),
    ],
)
@pytest.mark.parametrize("field", ["prediction", "prediction_type", "parameterization"])
def test_what_a_checkpoint_predicts_in_other_programs_words(
    field: str, written: str, prediction: str
) -> None:
    """diffusers', ComfyUI's, and those of A1111's `model.yaml`."""
    assert read_one(f"prompt: a\n{field}: {written}").prediction == prediction


def test_an_unknown_prediction_is_refused_with_those_there_are() -> None:
    """Text or not."""
    assert messages("prompt: a\nprediction: v_zero_snrr\n") == [
        "unknown prediction 'v_zero_snrr'. Did you mean 'v_zero_snr'? The predictions are "
        "automatic, epsilon, v and v_zero_snr."
    ]
    assert messages("prompt: a\nprediction: [v]\n") == [
        "prediction must be automatic, epsilon, v or v_zero_snr, not [v]. For one image with each "
        "write sweep: {prediction: [v]}"
    ]


def test_a_recipe_can_set_aside_what_its_folder_says_of_the_prediction() -> None:
    """`_defaults.yaml` is the place for a folder of one checkpoint."""
    folder = {"_defaults.yaml": "prediction: v_zero_snr\nsampler: Euler\n"}
    assert read_one("prompt: a", defaults=folder).prediction == "v_zero_snr"
    assert read_one("prompt: a\nprediction: automatic", defaults=folder).prediction == ""


def test_what_stands_beside_a_checkpoint_holds_where_the_recipe_says_nothing() -> None:
    """`prediction: automatic` says nothing either."""
    beside = Checkpoint("old", 512, prediction="v", says_prediction=False)
    inventory = Inventory(demo=DEMO, checkpoints=(beside,))
    for written, prediction in (("", "v"), ("automatic", "v"), ("epsilon", "epsilon")):
        text = "prompt: a\ncheckpoint: old\n" + (f"prediction: {written}\n" if written else "")
        assert read_one(text, inventory=inventory).prediction == prediction


def test_a_recipe_decides_which_samplers_must_begin_with_pure_noise() -> None:
    """Whatever the file says."""
    inventory = Inventory(
        demo=DEMO, checkpoints=(Checkpoint("noob", 1024, zero_snr=True), Checkpoint("plain", 1024))
    )
    text = "prompt: a\nsampler: {}\ncheckpoint: {}\nprediction: {}"
    assert messages(text.format("Heun", "plain", "v_zero_snr"), inventory=inventory) == [
        "the sampler Heun cannot begin with pure noise, as 'prediction: v_zero_snr' demands "
        "(zero terminal SNR). Use DPM++ 2M, DPM++ 2M SDE, "
        "DPM++ 2M SDE Heun, Euler, Euler a, DDIM, DDPM, UniPC, LCM or TCD."
    ]
    for sampler, checkpoint, prediction in (
        ("Euler", "plain", "v_zero_snr"),
        ("Heun", "noob", "v"),
        ("Heun", "noob", "epsilon"),
    ):
        recipe = read_one(text.format(sampler, checkpoint, prediction), inventory=inventory)
        assert recipe.prediction == prediction


def test_a_name_that_says_v_prediction_is_not_believed_but_not_passed_over() -> None:
    """Files without marks are the usual cause of pictures of noise."""
    inventory = Inventory(
        demo=DEMO,
        checkpoints=(
            Checkpoint("cat/noob_V-Pred_05", 1024, says_prediction=False),
            Checkpoint("marked-vpred", 1024),
            Checkpoint("plain", 1024, says_prediction=False),
        ),
    )
    text = "prompt: a\ncheckpoint: {}\nprediction: {}"
    (warning,) = read_one(text.format("noob", "automatic"), inventory=inventory).warnings
    assert warning == (
        "the checkpoint 'cat/noob_V-Pred_05' says v-prediction only in its name. If its pictures "
        "are noise, write 'prediction: v_zero_snr' or 'prediction: v'."
    )
    for checkpoint, prediction in (("noob", "epsilon"), ("marked", "auto"), ("plain", "auto")):
        recipe = read_one(text.format(checkpoint, prediction), inventory=inventory)
        assert recipe.warnings == ()
