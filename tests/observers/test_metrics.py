"""Metrics as Prometheus scrapes them."""

import random
import re
import socket
import struct
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from picowatch import __version__
from picowatch.daemon.settings_file import SettingsFile
from picowatch.observers import metrics
from picowatch.outbox.status import TROUBLES
from picowatch.settings.settings import load_settings
from tests.commands.picowatch import DIGESTS, PROJECT, picowatch, picowatch_here
from tests.digest_engine import DigestEngine, fail_on_bad
from tests.house import House, wait_for


@pytest.fixture
def address() -> str:
    """Return an address with a free port that the system does not give to others."""
    while True:
        number = random.randrange(10_000, 32_000)  # below /proc/sys/net/ipv4/ip_local_port_range
        with suppress(OSError), socket.create_server(("127.0.0.1", number)):
            return f"127.0.0.1:{number}"


def scraped(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        "".join(
            [sample.name, *(f" {label}={value}" for label, value in sample.labels.items())]
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_two_engines_do_is_counted(house: House, address: str) -> None:
    """Metrics have images by state, seconds of each, restarts, memory, and the version."""
    house.make_engine = lambda options: DigestEngine(before_batch=fail_on_bad)
    engine = "picowatch_engine_{} device=digest engine={} node="
    with house.running(metrics_address=address, executor="local:2", batch_size=1):
        house.save("a.yaml", "prompt: bad\nseed: 1\n")
        house.save("b.yaml", "prompt: b\nseed: 1\ncount: 5\n")
        made = [engine.format("images_total", number) for number in (1, 2)]
        wait_for(lambda: sum(scraped(address).get(key, 0) for key in made) == 5, "the pictures")
        wait_for(lambda: scraped(address)["picowatch_images state=failed"] == 1, "the failure")
        wait_for(lambda: scraped(address)["picowatch_images state=done"] == 5, "the status")
        found = scraped(address)
    number = next(number for number, key in enumerate(made, 1) if found.get(key))
    expected = {
        "picowatch_images state=queued": 0,
        "picowatch_images state=running": 0,
        "picowatch_image_seconds_count": 5,
        "picowatch_image_seconds_bucket le=0.1": 5,
        "picowatch_engine_restarts_total": 0,
        f"picowatch_info version={__version__}": 1,
        **{f"picowatch_in_trouble reason={reason}": 0 for reason in TROUBLES},
        engine.format("memory_bytes", number): 5_000_000,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert engine.format("steps_per_second", number) in found
    assert found["process_resident_memory_bytes"] > 1e6
    with pytest.raises(urllib.error.URLError):
        scraped(address)


TROUBLE = "picowatch is running, but in trouble: "


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("full", 1, f"{TROUBLE}outbox: the disk is full ("),
        ("models", 1, f"{TROUBLE}models: the folder /"),
        ("stuck", 1, f"{TROUBLE}engine: no step for 45 s"),
        ("paused", 4, "picowatch is paused until `picowatch resume`"),
    ],
)
def test_trouble_has_words_an_exit_code_and_a_metric(
    house: House, monkeypatch: pytest.MonkeyPatch, address: str, what: str, code: int, said: str
) -> None:
    """Though nothing waits for it, as on a full disk while nothing is to be written."""
    reason = {"full": "outbox", "stuck": "engine"}.get(what, what)
    with house.held("a.txt", "one\n", metrics_address=address) as held:
        assert picowatch_here(house.folder, "status", "--check").returncode == 0
        match what:
            case "full":
                monkeypatch.setattr("picowatch.outbox.status.FULL_BYTES", 2**62)
            case "models":
                house.models.rename(house.folder / "away")
            case "stuck":
                stuck = property(lambda rendering: "no step for 45 s")
                monkeypatch.setattr("picowatch.daemon.rendering.Rendering.trouble", stuck)
            case "paused":
                assert picowatch_here(house.folder, "pause").returncode == 0
        wait_for(lambda: reason in house.status()["troubles"], "the next status")
        health = picowatch_here(house.folder, "status", "--check")
        assert (health.returncode, health.stdout) == (code, "")
        assert health.stderr.startswith(said)
        found = scraped(address)
        told = {other: found[f"picowatch_in_trouble reason={other}"] for other in TROUBLES}
        assert told == {other: other == reason for other in TROUBLES}
        held.release()


def test_alerts_ask_for_metrics_that_there_are() -> None:
    """With the reasons of trouble that there are; each has a name and says what is wrong."""
    (group,) = yaml.safe_load((PROJECT / "contrib/alerts.yml").read_text())["groups"]
    documented = (PROJECT / "docs/monitoring.md").read_text()
    names = [rule["alert"] for rule in group["rules"]]
    assert len({*names}) == len(names) > 3
    for rule in group["rules"]:
        assert rule["annotations"]["summary"].endswith(".")
        for metric in re.findall(r"picowatch_\w+", rule["expr"]):
            assert f"`{metric}" in documented, metric
        assert {*re.findall(r'reason!?="(\w+)"', rule["expr"])} <= {*TROUBLES}


def test_an_address_may_move_to_all_interfaces_at_the_same_port(house: House, address: str) -> None:
    """The old socket is part of the new one. After one that cannot be served the old one is."""
    path, port = house.folder / "picowatch.yaml", address.rpartition(":")[2]
    flags = {"inbox": house.inbox, "outbox": house.outbox, "models": house.models}
    file = SettingsFile(path, lambda: load_settings(flags, {}, path))
    own = "settle_seconds: 0.05\nmetrics_address: "
    path.write_text(f"{own}{address}\n")
    house.save("a.txt", "one\n")
    pictures = "picowatch_image_seconds_count"
    with house.running(file, metrics_address=address):
        wait_for(lambda: scraped(address)[pictures] == 1, "the picture")
        for refused in (f"192.0.2.1:{port}", "192.0.2.1:9464"):
            path.write_text(f"{own}{refused}\n")
            wait_for(lambda: f"address {refused}: cannot" in house.log(), "the refusal")  # noqa: B023
            assert pictures in scraped(address)
        path.write_text(f"{own}:{port}\n")
        wait_for(lambda: f"http://0.0.0.0:{port}/" in house.log(), "the new address")
        wait_for(lambda: "picowatch_in_trouble reason=outbox" in scraped(address), "its status")


@pytest.fixture
def served(address: str) -> Iterator[str]:
    serving = metrics.Metrics(address)
    yield address
    serving.close()


def connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), 10)


@pytest.mark.parametrize("seconds", [0.2, 600.0])
def test_clients_that_say_nothing_keep_no_handles(
    served: str, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Only some are heard at once, and only for some seconds."""
    monkeypatch.setattr(metrics, "MOST_CLIENTS", 2)
    monkeypatch.setattr(metrics._Handler, "timeout", seconds)
    clients = [connected(served) for _ in range(5)]
    for client in clients if seconds < 1 else clients[2:]:
        assert client.recv(1) == b"", "picowatch closes the connection"
    for client in clients:
        client.close()
    wait_for(lambda: can_scrape(served), "room for others")


def can_scrape(address: str) -> bool:
    with suppress(OSError):
        return bool(scraped(address))
    return False


def test_clients_that_break_off_or_ask_for_strange_things_print_no_traceback(
    served: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of metrics are not the user's; others are served as before."""
    caplog.set_level("DEBUG", "picowatch")
    monkeypatch.setattr(sys, "stderr", console := StringIO())
    with connected(served) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.send(b"GET /metr")
    wait_for(lambda: "metrics: " in caplog.text, "the end of the client")
    strange = {"Accept": "application/openmetrics-text; version=foo"}
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(f"http://{served}/", headers=strange))
    assert scraped(served)
    assert console.getvalue() == ""


@pytest.mark.parametrize("host", ["[::1]", "localhost", ""])
def test_addresses_may_be_names_or_of_ip_version_6(host: str) -> None:
    """None means all interfaces."""
    serving = metrics.Metrics(f"{host}:0")
    try:
        assert scraped(f"{host or '127.0.0.1'}:{serving._server.server_port}")
    finally:
        serving.close()


def test_an_address_in_use_is_an_error(tmp_path: Path) -> None:
    """That is for a daemon: `run --once`, with the same settings, has no metrics."""
    (tmp_path / "inbox").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = picowatch_here(tmp_path, "run", PICOWATCH_METRICS_ADDRESS=address)
        once = picowatch_here(tmp_path, "run", "--once", PICOWATCH_METRICS_ADDRESS=address)
    assert refused.returncode == 2
    assert refused.stderr == (
        f"picowatch: metrics_address {address}: cannot serve there: Address already in "
        "use. Choose another port, or leave it out.\n"
    )
    assert once.returncode == 0
    assert "metrics" not in once.stdout + once.stderr


def test_without_prometheus_client_an_error_names_the_command_to_install_it(tmp_path: Path) -> None:
    """It is not needed if metrics are off. The docs and the example name the same port."""
    for file in ("contrib/prometheus.yml", "docs/monitoring.md"):
        assert "127.0.0.1:9464" in (PROJECT / file).read_text()
    for name in ("inbox", "absent"):
        (tmp_path / name).mkdir()
    (tmp_path / "absent/prometheus_client.py").write_text("raise ImportError('absent here')\n")
    path = f"{tmp_path / 'absent'}:{PROJECT}"
    assert picowatch(tmp_path, "run", "--once", program=DIGESTS, PYTHONPATH=path).returncode == 0
    refused = picowatch(tmp_path, "run", PYTHONPATH=path, PICOWATCH_METRICS_ADDRESS="127.0.0.1:0")
    assert refused.returncode == 2
    assert "pip install 'picowatch-diffusion[metrics]'" in refused.stderr
    assert "Traceback" not in refused.stderr
