"""Pipelines without a row: what the engine checks when it loads and draws them."""

from contextlib import suppress
from inspect import signature
from typing import Any

import diffusers
import pytest
import transformers

from picowatch.engine.model.part_files import own_class
from picowatch.errors import RenderFailed
from picowatch.families import general
from picowatch.families.general import NotDrawn, general_row
from picowatch.families.row import Family
from tests.engine.flow_requests import flow_models, flow_renderer, requests_of
from tests.engine.requests import draw
from tests.engine.tiny_flows import GENERAL

_D: Any = diffusers
_T: Any = transformers


def rows() -> dict[str, Family]:
    """Of all pipelines that get one."""
    found = {}
    for name in general._sources():
        with suppress(NotDrawn):
            found[name] = general_row(name)
    return found


@pytest.mark.heavy
def test_signatures_in_the_source_are_those_of_the_classes() -> None:
    """Names, and defaults where they are literals."""
    drawn = {name for name in rows() if hasattr(diffusers, name)}
    assert drawn >= {tiny.family for tiny in GENERAL.values()}
    for name in drawn:
        for method in ("__init__", "__call__"):
            theirs = signature(getattr(getattr(diffusers, name), method)).parameters
            ours = general.signature(name, method)
            named = [key for key in theirs if key not in ("self", "args", "kwargs")]
            assert ours and [*ours] == named, name
            for key, parameter in ours.items():
                assert parameter.default in (None, theirs[key].default), (name, key)


@pytest.mark.parametrize("name", ["NoSuchModel", "pipeline", "CLIPTokenizer"])
def test_only_models_of_the_libraries_are_loaded(name: str) -> None:
    """Whatever a folder says."""
    with pytest.raises(RenderFailed, match=f"has a PreTrainedModel called '{name}'"):
        own_class(name, _T.PreTrainedModel)


def test_a_pipeline_that_draws_another_size_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kandinsky 5 and HiDream-I1 have sizes of their own."""
    name, kind = "AuraFlow", _D.AuraFlowPipeline
    call = kind.__call__

    def smaller(self: Any, *, width: int, height: int, **named: Any) -> Any:
        return call(self, width=width // 2, height=height, **named)

    smaller.__signature__ = signature(call)  # type: ignore[attr-defined]
    monkeypatch.setattr(kind, "__call__", smaller)
    wanted = requests_of(flow_models(name), name, "prompt: a red cube")
    with pytest.raises(RenderFailed, match="drew 32x64 instead of 64x64") as failed:
        draw(flow_renderer(flow_models(name)), *wanted)
    assert failed.value.remedy == "Write 'size: 32x64'."
