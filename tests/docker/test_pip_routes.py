"""A build in a container goes to the same indexes as this machine's pip."""

from pathlib import Path

from tests.docker.pip_routes import pip_routes, routes_in


def test_the_environment_beats_the_files() -> None:
    """Whatever order pip lists them in."""
    listed = ":env:.index-url='https://b.example/simple'\nglobal.index-url='https://a.example'\n"
    assert routes_in(listed).config == "[global]\nindex-url = https://b.example/simple\n"


def test_what_is_no_route_is_left_behind() -> None:
    """A cache or a target folder of this machine is none of the image's."""
    assert routes_in("global.cache-dir='/var/cache/pip'\n").paths == ()
    assert routes_in("global.target='/opt/x'\n").config == "[global]\n"


def test_files_and_folders_are_lent() -> None:
    """An index of files with what lies beside it; several in one value."""
    listed = (
        "global.cert='/etc/ssl/own.pem'\n"
        "install.find-links='/srv/wheels\\nhttps://c.example/wheels'\n"
        "global.extra-index-url='file:///srv/pypi/simple file:///srv/more%20pypi/simple'\n"
    )
    routes = routes_in(listed)
    assert routes.paths == tuple(
        map(Path, ["/etc/ssl/own.pem", "/srv/more pypi", "/srv/pypi", "/srv/wheels"])
    )
    assert "find-links = /srv/wheels https://c.example/wheels\n" in routes.config


def test_this_machines_own_are_found() -> None:
    """pip itself is asked."""
    assert pip_routes().config.startswith("[global]\n")
