"""Commands from another process: pictures are deleted, and `make` names its pictures."""

import pytest

from tests.commands.picowatch import picowatch_here
from tests.house import House, wait_for

FILES = ["a/0001-1.png", "a/0002-2.png", "a/0003-3.png"]
RECIPE = "prompt: a corgi\nseed: [1, 2, 3]\n"


def rendered(house: House, **settings: str) -> None:
    house.save("a.yaml", RECIPE)
    assert house.once(**settings)
    assert {*FILES} <= {*house.pictures()}


def test_a_running_daemon_deletes_pictures(house: House) -> None:
    """A restart renders none of them again, only another save; lines and numbers stay."""
    rendered(house)
    house.save("b.txt", "a cat --seed 1\n")
    latest, newest = house.outbox / "latest.png", house.outbox / "b/0001-1.png"
    with house.running():
        wait_for(newest.exists, "the newest")
        wait_for(lambda: latest.read_bytes() == newest.read_bytes(), "the newest as latest.png")
        house.save("a.yaml", RECIPE)
        older = [(house.outbox / file).read_bytes() for file in FILES]
        wait_for(lambda: latest.read_bytes() in older, "an older one, as nothing is new")
        (house.outbox / FILES[0]).unlink()
        answer = picowatch_here(house.folder, "delete", FILES[1], f"outbox/{FILES[2]}", "a/9.png")
        assert answer.returncode == 1
        assert answer.stderr == "2 pictures deleted. There is no 'a/9.png' in the gallery.\n"
        assert latest.read_bytes() == newest.read_bytes()
        wait_for(lambda: house.status()["pictures"] == ["b/0001-1.png"], "the status")
    assert f"{FILES[1]} and {FILES[2]}: deleted, as requested" in house.log()
    assert house.once()
    assert house.pictures() == ["b/0001-1.png"]
    assert {line["file"] for line in house.listed()} == {*FILES, "b/0001-1.png"}
    house.save("a.yaml", RECIPE)
    assert house.once()
    assert house.pictures("a") == ["a/0004-1.png", "a/0005-2.png", "a/0006-3.png"]


def test_what_lies_beside_a_picture_goes_with_it(house: House) -> None:
    """Its sidecar is deleted, but no other text of that name; latest.png shows the newest left."""
    rendered(house, sidecar="txt")
    (house.outbox / "a/0002-2.txt").write_text("a note of mine")
    assert house.answer("delete", None, *FILES[1:]).text == "2 pictures deleted."
    latest = house.outbox / "latest.png"
    assert latest.read_bytes() == (house.outbox / FILES[0]).read_bytes()
    assert sorted(path.name for path in (house.outbox / "a").glob("*.txt")) == [
        "0001-1.txt", "0002-2.txt"
    ]  # fmt: skip
    assert house.answer("delete", None, FILES[0]).done
    assert not latest.exists()


@pytest.mark.parametrize("at_once", [100, 1])
def test_a_folder_is_its_pictures(
    house: House, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Not texts, nor a folder whose name begins alike. Very many are deleted in several rounds."""
    monkeypatch.setattr("picowatch.daemon.picture_commands.AT_ONCE", at_once)
    house.save("a/b.txt", "one --seed 4\n")
    house.save("ab.txt", "one --seed 5\n")
    rendered(house)
    (house.outbox / "a/note.txt").write_text("mine")
    with house.running():
        answer = picowatch_here(house.folder, "delete", "outbox/a/", FILES[0])
        assert (answer.returncode, answer.stdout) == (0, "4 pictures deleted.\n"), answer.stderr
        again = picowatch_here(house.folder, "delete", "outbox/a")
        assert again.stderr == "0 pictures deleted. 'a' has no picture in the gallery.\n"
        assert house.log().count("deleted, as requested") == (1 if at_once > 4 else 4)
    assert house.pictures() == ["ab/0001-5.png"]
    assert (house.outbox / "a/note.txt").exists()


def test_nothing_but_pictures_of_the_gallery_is_deleted(house: House) -> None:
    """Anybody who may write to the outbox may write commands."""
    rendered(house)
    (house.outbox / "linked").symlink_to(house.folder / "elsewhere")
    secrets = [house.folder / "secret.png", house.folder / "elsewhere/0001-1.png"]
    for secret in secrets:
        secret.parent.mkdir(exist_ok=True)
        secret.write_bytes((house.outbox / FILES[0]).read_bytes())
    (house.outbox / "a/note.txt").write_text("mine")
    before = sorted(path for path in house.outbox.rglob("*") if "commands" not in path.parts)
    for wrong in (
        *("../secret.png", "/etc/hostname", "a/../../secret.png", ".picowatch/ledger.sqlite", "."),
        *("", "latest.png", "a.yaml", "a/note.txt", "a/\0.png", "linked/0001-1.png"),
    ):
        assert not house.answer("delete", None, wrong).done
    assert sorted(p for p in house.outbox.rglob("*") if "commands" not in p.parts) == before
    assert all(path.exists() for path in secrets)


def test_make_names_the_pictures_of_one_save(house: House) -> None:
    """An earlier save of the same bytes is still queued, with other random seeds."""
    with house.held("first.txt", "in progress\n", batch_size=1) as hold:
        path = house.save("x.yaml", "prompt: a corgi\ncount: 2\n")
        wait_for(lambda: "x.yaml: saved, 2 images queued" in house.log(), "the first save")
        path.touch()
        wait_for(lambda: "random seeds drawn again" in house.log(), "the second save")
        command = house.tell("make", "x.yaml")
        hold.release()
        answer = house.answer_to(command)
        wait_for(lambda: len(house.pictures("x")) == 4, "the pictures of both saves")
    assert answer.text == "2 images rendered."
    assert sorted(answer.pictures) == house.pictures("x")[2:]


def test_make_does_not_say_that_a_prompt_is_missing_if_an_error_file_is(house: House) -> None:
    """Another `make --rm` of the same recipe has been answered, which removed it."""
    house.save("a.yaml", "promt: a corgi\n")
    with house.running():
        wait_for(lambda: house.error("a.yaml"), "the error file")
        (house.outbox / "a.yaml.error.txt").unlink()
        answer = house.answer_to(house.tell("make", "a.yaml"))
    assert answer.text.startswith("a.yaml is wrong, and its error file was removed.")
