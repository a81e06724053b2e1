"""`step_cache: true`: steps reuse what earlier ones computed, and leave no trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from torch import nn

from picowatch.engine.drawing import callbacks
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model.memory import LAYERS, MODELS, TURNS, Rung
from picowatch.errors import RenderFailed
from picowatch.families import FAMILIES
from picowatch.recipe.messages.problems import RecipeInvalid
from tests.engine.flow_requests import flow_models, flow_renderer, requests_of
from tests.engine.requests import difference, draw
from tests.engine.rungs import on_rung
from tests.engine.tiny_flows import FOLDERS, deep_flow
from tests.kinds import one_of_each_kind

# A checkpoint of each family that has it; those of FLUX.1 are patched, those of Qwen-Image called
# twice a step, and cache-dit does not find those of Stable Diffusion 3.
FAMILIES_OF = {FOLDERS[name].family: name for name in reversed(FOLDERS)}
ABLE = {key: name for key, name in FAMILIES_OF.items() if "step_cache" not in FAMILIES[key].lacks}
IN_EACH_RUN = ("flux", "qwen_image", "sd3")
CUBE = "prompt: a red cube\nsteps: 8\nexact: false"
CACHED = f"{CUBE}\nstep_cache: true"
_LAST = ("single_transformer_blocks", "transformer_blocks", "layers")


@pytest.fixture(autouse=True)
def _reuse_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights change more from step to step than a model's."""
    monkeypatch.setitem(callbacks._NUMBERS, "residual_diff_threshold", 10.0)


@contextmanager
def counted(renderer: Renderer) -> Iterator[list[None]]:
    """Note each time that the last block of the denoiser computes."""
    (loaded,) = renderer._kept.values("checkpoint")
    blocks = next(filter(None, (getattr(loaded.denoiser, name, None) for name in _LAST)))
    assert isinstance(blocks, nn.ModuleList)
    calls: list[None] = []
    with blocks[-1].register_forward_pre_hook(lambda *_: calls.append(None)):
        yield calls


@pytest.mark.parametrize("family", one_of_each_kind(ABLE, IN_EACH_RUN))
def test_three_of_eight_steps_reuse_blocks_and_the_next_picture_is_as_before(family: str) -> None:
    """Each image of a batch by itself, since one decision would hold for all; without a graph."""
    name = ABLE[family]
    models = flow_models(f"{name}-deep", deep_flow(name))
    renderer = flow_renderer(models)
    (plain,) = requests_of(models, f"{name}-deep", CUBE)
    both = requests_of(models, f"{name}-deep", f"{CACHED}\nseed: [7, 8]")
    assert both[0].as_dict()["step_cache"] and both[0].digest != plain.digest
    before = draw(renderer, plain)[0]
    renderer.uses_graphs = True
    first, second = draw(renderer, *both)
    with counted(renderer) as reused:
        assert draw(renderer, both[1])[0].pixels == second.pixels
    renderer.uses_graphs = False
    assert difference(first, before) > 0 and first.pixels != second.pixels
    assert (first.batch_size, first.compiled, first.warnings) == (1, False, ())
    with counted(renderer) as usual:
        assert draw(renderer, plain)[0].pixels == before.pixels
    assert len(reused) * 8 == len(usual) * 5


RUNGS = [("FLUX.1-dev", rung) for rung in (MODELS, LAYERS, TURNS)]
RUNGS.append((ABLE["chroma"], MODELS))  # cache-dit patches what accelerate hooks


@pytest.mark.parametrize(("folder", "rung"), RUNGS, ids=str)
def test_every_rung_caches_but_that_which_moves_layers(folder: str, rung: Rung) -> None:
    name = f"{folder}-deep"
    models = flow_models(name, deep_flow(folder))
    renderer = on_rung(flow_renderer(models), rung)
    plain, quick = (requests_of(models, name, text)[0] for text in (CUBE, CACHED))
    before, cached, after = (draw(renderer, request)[0] for request in (plain, quick, plain))
    assert before.pixels == after.pixels
    assert (before.pixels == cached.pixels) == (rung.place == "layers")
    assert len(cached.warnings) == (rung.place == "layers")


REFUSED = [key for key in FAMILIES_OF if "step_cache" in FAMILIES[key].lacks]


@pytest.mark.parametrize("family", [*REFUSED, "sd1"])
def test_a_family_without_effect_refuses_it(family: str) -> None:
    """With its name and the remedy; the demo model is in every folder."""
    name = FAMILIES_OF.get(family, "demo")
    said = f"{FAMILIES[family].name} has no step_cache: .*\\. Remove it\\."
    with pytest.raises(RecipeInvalid, match=said):
        requests_of(flow_models(FAMILIES_OF.get(family, "FLUX.1-dev")), name, CACHED)


def test_without_the_extra_the_command_for_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    models = flow_models("FLUX.1-dev")
    renderer, requests = flow_renderer(models), requests_of(models, "FLUX.1-dev", CACHED)
    monkeypatch.setattr(callbacks, "find_spec", lambda _: None)
    with pytest.raises(RenderFailed) as failed:
        draw(renderer, *requests)
    assert "cache-dit, which is not installed" in failed.value.message
    assert "[cache]'" in (failed.value.remedy or "") and not renderer._kept.values("checkpoint")
