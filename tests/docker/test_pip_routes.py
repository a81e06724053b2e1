"""A build in a container goes to the same indexes as this machine's pip."""

import re
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.docker.pip_routes import routes_in, serve_routes

SERVER = "http://127.0.0.1:1"


def test_the_environment_beats_the_files() -> None:
    """Whatever order pip lists them in."""
    listed = ":env:.index-url='https://b.example/simple'\nglobal.index-url='https://a.example'\n"
    assert routes_in(listed, SERVER)[0] == "[global]\nindex-url = https://b.example/simple\n"


def test_what_is_no_route_is_left_behind() -> None:
    """A cache or a target folder of this machine is none of the image's."""
    assert routes_in("global.cache-dir='/var/cache/pip'\n", SERVER) == ("[global]\n", set())


def test_files_and_folders_are_lent() -> None:
    """An index of files with what lies beside it; several in one value."""
    listed = (
        "global.cert='/etc/ssl/own.pem'\n"
        "install.find-links='/srv/wheels\\nhttps://c.example/wheels'\n"
        "global.extra-index-url='file:///srv/pypi/simple file:///srv/more%20pypi/simple'\n"
    )
    config, paths = routes_in(listed, SERVER)
    assert paths == set(
        map(Path, ["/etc/ssl/own.pem", "/srv/more pypi", "/srv/pypi", "/srv/wheels"])
    )
    assert config == (
        "[global]\ncert = /etc/ssl/own.pem\n"
        f"extra-index-url = {SERVER}/srv/pypi/simple {SERVER}/srv/more%20pypi/simple\n"
        f"find-links = {SERVER}/srv/wheels https://c.example/wheels\n"
    )


def test_this_machines_own_are_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pip itself lists them, while a build runs."""
    (tmp_path / "a wheel.whl").write_text("whole")
    certificates = tmp_path / "own.pem"
    certificates.write_text("trusted")
    within = tmp_path / "more"
    within.mkdir()
    listed = f":env:.cert='{certificates}'\nglobal.find-links='{tmp_path} {within}'\n"
    done = subprocess.CompletedProcess([], 0, listed)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with serve_routes(tmp_path / "base", tmp_path / "served") as config:
        found = re.search(r"^find-links = (\S+) (\S+)$", config, re.MULTILINE)
        assert found
        with urlopen(f"{found[1]}/a%20wheel.whl") as answer:
            assert answer.read() == b"whole"
        with urlopen(found[2]) as answer:
            assert answer.status == 200
    base = tmp_path / "base" / certificates.relative_to("/")
    assert base.read_text() == "trusted"
