"""Sampler names, schedule types and predictions."""

import pytest

from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.samplers import SAMPLERS, KnownSampler
from tests.recipe.reading import DEMO, check_refused, check_warned, read_one

NOOB = Inventory(
    demo=DEMO,
    checkpoints=(Checkpoint("noob", 1024, prediction="v_zero_snr"), Checkpoint("plain", 1024)),
)
ALL = (
    "DPM++ 2M, DPM++ 2M SDE, DPM++ 2M SDE Heun, DPM++ 3M SDE, Euler, Euler a, "
    "Heun, LMS, DPM2, DPM2 a, DPM++ SDE, DDIM, DDPM, SA-Solver, DEIS, UniPC, PNDM, LCM and TCD"
)
FROM_NOISE = "Euler, Euler a, DDIM, DDPM, UniPC, LCM or TCD, or leave it out."

# The names that A1111, ComfyUI, k-diffusion, diffusers and SD.Next give each sampler.
NAMES = {
    ("DPM++ 2M", "karras"): "DPM++ 2M Karras | dpm++ 2m | dpmpp_2m | DPMSolverMultistepScheduler",
    ("DPM++ 2M", "sgm_uniform"): "DPM++ 2M SGM Uniform | DPM++ 2M Simple",
    ("DPM++ 2M SDE", "exponential"): "DPM++ 2M SDE | dpmpp_2m_sde_gpu",
    ("Euler", "uniform"): "Euler | EulerDiscreteScheduler | FlowMatchEulerDiscreteScheduler",
    ("Euler", "sgm_uniform"): "Euler SGM",
    ("Euler a", "uniform"): "Euler a | k_euler_a | EulerAncestralDiscrete | euler_ancestral",
    ("Euler a", "karras"): "Euler a Karras | euler_ancestral_karras",
    ("DPM2", "karras"): "KDPM2DiscreteScheduler | KDPM2 | dpm_2",
    ("DPM2 a", "karras"): "DPM2 a | KDPM2 a | k_dpm_2_ancestral | KDPM2AncestralDiscreteScheduler",
    ("DPM++ SDE", "karras"): "dpmpp_sde_gpu | sample_dpmpp_sde | DPM SDE | DPMSolverSDEScheduler",
    ("DDIM", "uniform"): "ddim | DDIMScheduler",
    ("UniPC", "uniform"): "Uni-PC | UniPCMultistepScheduler | uni_pc_bh2",
    ("PNDM", "uniform"): "PLMS | PNDMScheduler",
}


@pytest.mark.parametrize(("meant", "written"), NAMES.items())
def test_names_of_other_tools_are_understood(meant: tuple[str, str], written: str) -> None:
    """Without a schedule type, the sampler's default is used."""
    for name in written.split(" | "):
        recipe = read_one(f"prompt: a\nsampler: {name}")
        assert (recipe.sampler, recipe.schedule_type) == meant, name


def test_samplers_that_do_not_go_are_explained() -> None:
    for written, why in {
        "Eulr": "unknown sampler 'Eulr'. Did you mean 'Euler'?",
        "k_dpm_fast": "the sampler DPM fast is not supported; DPM++ 2M comes closest.",
        "dpmpp_2s_ancestral_karras": "the sampler DPM++ 2S a is … Euler a comes closest.",
        "res_multistep_ancestral_cfg_pp": "the sampler res_multistep_ancestral … Euler a …",
        "euler_ancestral_cfg_pp": "the sampler Euler a CFG++ is not supported; Euler a comes …",
        "er_sde": "the sampler er_sde is not supported; DPM++ 3M SDE comes closest.",
    }.items():
        check_refused(f"prompt: a\nsampler: {written}", f"{why} The samplers are {ALL}.")


def pasted(sampler: str, schedule_type: str) -> list[Recipe]:
    """Return the recipes of A1111's text, and of an older one."""
    text = f"a\nSteps: 3, Sampler: {sampler}, Schedule type: {schedule_type}, Seed: 7"
    older = text.replace(", Schedule type:", "")
    return [read_one(written, "a.txt") for written in (text, older)]


@pytest.mark.parametrize("schedule_type", ["Karras", "Exponential", "Beta"])
@pytest.mark.parametrize("sampler", ["Euler a", "DDIM", "LCM", "DPM++ SDE"])
def test_noise_levels_go_with_samplers_that_have_no_option_for_them_in_diffusers(
    sampler: str, schedule_type: str
) -> None:
    """A1111 offers them with every sampler."""
    own = read_one(f"prompt: a\nsampler: {sampler}\nschedule_type: {schedule_type}")
    for recipe in (own, *pasted(sampler, schedule_type)):
        assert (recipe.sampler, recipe.schedule_type) == (sampler, schedule_type.lower())
        assert not any("chedule" in warning for warning in recipe.warnings)


PNDM_TAKES = (
    "PNDM does not take the schedule type 'karras': it takes automatic, uniform, sgm_uniform, "
    "leading and linspace."
)


def test_what_comes_closest_stands_for_what_others_have() -> None:
    """In a recipe it is refused: the formula of PLMS is for steps of one length."""
    check_refused("prompt: a\nsampler: PLMS Karras", PNDM_TAKES)
    for sampler, instead, words in (
        ("DPM++ 2S a", ("Euler a", "karras"), "sampler DPM++ 2S a is not"),
        ("PLMS", ("PNDM", "uniform"), f"{PNDM_TAKES} uniform is used instead."),
    ):
        for recipe in pasted(sampler, "Karras"):
            assert (recipe.sampler, recipe.schedule_type) == instead
            assert any(words in warning for warning in recipe.warnings)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_ensd_is_said_to_do_nothing_where_steps_draw_no_noise(sampler: KnownSampler) -> None:
    """In a sweep, one of them may. Each is found by its own name, whatever others' aliases are."""
    recipe = read_one(f"prompt: a\nensd: 7\nsampler: {sampler.name}")
    assert recipe.sampler == sampler.name
    said = f"ensd has no effect with the sampler {sampler.name}: it is for DPM++ 2M SDE, …"
    check_warned(recipe, *([] if sampler.noisy else [said]))
    check_warned(read_one("prompt: a\nensd: 7\nsweep: {sampler: [Euler, Euler a]}"))


def test_a_checkpoint_of_pure_noise_refuses_samplers_that_cannot_begin_with_it() -> None:
    """Whatever its file says, the recipe's prediction decides; before anything is loaded."""
    text = "prompt: a\ncheckpoint: {}\nprediction: {}\nsampler: {}"
    for checkpoint, prediction in (("noob", "automatic"), ("plain", "v_zero_snr")):
        read_one(text.format(checkpoint, prediction, "Euler"), inventory=NOOB)
        what = f"the sampler Heun cannot be used with '{checkpoint}': it cannot begin with pure …"
        heun = text.format(checkpoint, prediction, "Heun")
        check_refused(heun, f"{what}{FROM_NOISE}", inventory=NOOB)
    for prediction in ("v", "epsilon"):
        read_one(text.format("noob", prediction, "Heun"), inventory=NOOB)


@pytest.mark.parametrize("said", ["checkpoint: noob", "prediction: v_zero_snr"])
def test_a_checkpoint_of_pure_noise_has_a_sampler_that_suits_it(said: str) -> None:
    """With Karras, 16 of 24 steps would pass above the noise of other checkpoints."""
    for written, meant, warned in (
        ("", ("Euler", "sgm_uniform"), False),
        ("sampler: DDIM", ("DDIM", "uniform"), False),
        ("sampler: DPM++ 2M", ("DPM++ 2M", "karras"), True),
        ("schedule_type: exponential", ("Euler", "exponential"), True),
    ):
        text = "prompt: a\ncheckpoint: plain\n" if said.startswith("pred") else "prompt: a\n"
        recipe = read_one(f"{text}{said}\n{written}", inventory=NOOB)
        assert (recipe.sampler, recipe.schedule_type) == meant
        what = f"The schedule type '{meant[1]}' spends most steps near pure noise, …"
        check_warned(recipe, *([what] if warned else []))


PREDICTIONS = {
    "": "automatic | Auto",
    "epsilon": "epsilon | EPS",
    "v": "v | v-prediction | v_prediction | vpred",
    "v_zero_snr": "v_zero_snr | v zero-snr | ztsnr | Zero Terminal SNR",
}


@pytest.mark.parametrize("field", ["prediction", "prediction_type", "parameterization"])
def test_what_a_checkpoint_predicts_in_other_programs_words(field: str) -> None:
    """diffusers', ComfyUI's, and those of A1111's `model.yaml`."""
    for prediction, written in PREDICTIONS.items():
        for word in written.split(" | "):
            assert read_one(f"prompt: a\n{field}: {word}").prediction == prediction


def test_what_stands_beside_a_checkpoint_holds_where_the_recipe_says_nothing() -> None:
    """`prediction: automatic` says nothing either."""
    beside = Checkpoint("old", 512, prediction="v", says_prediction=False)
    inventory = Inventory(demo=DEMO, checkpoints=(beside,))
    for written, prediction in (("", "v"), ("automatic", "v"), ("epsilon", "epsilon")):
        text = "prompt: a\ncheckpoint: old\n" + (f"prediction: {written}\n" if written else "")
        assert read_one(text, inventory=inventory).prediction == prediction


def test_a_name_that_says_v_prediction_is_not_believed_but_not_passed_over() -> None:
    """Files that do not tell their prediction are the usual cause of noise."""
    named = Checkpoint("cat/noob_V-Pred_05", 1024, says_prediction=False)
    plain = Checkpoint("plain", 1024, says_prediction=False)
    inventory = Inventory(demo=DEMO, checkpoints=(named, Checkpoint("marked-vpred", 1024), plain))
    text = "prompt: a\ncheckpoint: {}\nprediction: {}"
    what = "only the name of the checkpoint 'cat/noob_V-Pred_05' says v-prediction. …"
    check_warned(read_one(text.format("noob", "automatic"), inventory=inventory), what)
    for checkpoint, prediction in (("noob", "epsilon"), ("marked", "auto"), ("plain", "auto")):
        check_warned(read_one(text.format(checkpoint, prediction), inventory=inventory))
