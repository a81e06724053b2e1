"""The benchmark of the gallery runs; its figures are in benchmarks/RESULTS.md."""

import subprocess
import sys

import pytest

from tests.browser.conftest import CHROMEDRIVER, CHROMIUM


@pytest.mark.heavy
@pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="no Chromium with its driver is here")
def test_the_benchmark_of_the_gallery_runs() -> None:
    """It runs with few pictures."""
    few = ["--pictures", "300", "--add", "2", "--rounds", "1", "--frames", "20"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gallery", *few], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for what in ("adding", "until the window is full", "scrolling fast", "searching"):
        assert what in done.stdout
