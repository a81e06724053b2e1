"""What is to be done with the files of an inbox, for any of them."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from picowatch.files.names import natural_key
from picowatch.inbox.names import PICTURES_NAME, is_dropped, is_template
from picowatch.inbox.plan import Found, plan, template_folder
from picowatch.inbox.settle import NEW, Pending
from picowatch.ledger.rows import KnownRecipe, SizeAndTime

PATHS = (
    *("a.txt", "b.yaml", "pets/c.txt", "pets/a10.txt", "pets/a9.txt"),
    *("frames/_pictures.yaml", "frames/1.png", "frames/in/2.png", "stars/3.png"),
)
HERE, ELSEWHERE = "1:2", "1:3"

versions = st.builds(
    SizeAndTime,
    size=st.integers(0, 2),
    mtime_ns=st.integers(1, 3),
    inode=st.integers(1, 2),
    sidecars=st.integers(0, 1),
    ctime_ns=st.integers(0, 2),
)
rows = st.builds(
    KnownRecipe,
    size_and_time=versions,
    digest=st.just("digest"),
    outcome=st.sampled_from(["accepted", "accepted", "refused", "restored"]),
    inbox_id=st.sampled_from([HERE, HERE, ELSEWHERE]),
    template=st.sampled_from(["", "digest"]),
    waits=st.booleans(),
    reread=st.sampled_from(["", "", "read", "saved"]),
)
some_paths = st.sets(st.sampled_from(PATHS))
Situation = tuple[Found, dict[str, KnownRecipe]]


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    known = draw(st.dictionaries(st.sampled_from(PATHS), rows))
    files = draw(st.dictionaries(st.sampled_from(PATHS), versions))
    for path in draw(some_paths) & known.keys():  # most files are as the ledger has them
        files[path] = known[path].size_and_time
    names = draw(st.sampled_from([None, (), ("frames/1.png",)]))
    template = f"frames/{PICTURES_NAME}"
    found = Found(
        files,
        HERE,
        present=draw(some_paths) - files.keys(),
        named={} if names is None else {template: ("digest", names)},
        young=draw(some_paths),
        rereads=draw(st.booleans()),
    )
    return found, known


@given(situations())
def test_each_difference_is_planned_in_the_order_of_times(situation: Situation) -> None:
    found, known = situation
    planned = plan(found, known, {}, 1.0)
    reads = [pending for pending in planned.pending.values() if pending.size_and_time]
    for pending in reads:
        row = known.get(pending.path)
        assert pending.size_and_time == found.files[pending.path]
        is_known = row is not None and row.size_and_time[:3] == pending.size_and_time[:3]
        assert pending.is_new is not is_known
        assert row or pending.why == NEW
    gone = {pending.path for pending in planned.pending.values() if pending.size_and_time is None}
    # Pictures that may be others' new names, once their template can be used.
    waiting = {
        version[:2]
        for path, version in found.files.items()
        if is_dropped(path) and path not in known and not _template_of(path, planned.templates)
    }
    assert gone == {
        path
        for path, row in known.items()
        if path not in found.files and path not in found.present and row.inbox_id == HERE
        if not (is_dropped(path) and row.size_and_time[:2] in waiting)
    }
    assert [*planned.pending][len(reads) :] == [path for path in planned.pending if path in gone]
    keys = [(found.files[pending.path].mtime_ns, natural_key(pending.path)) for pending in reads]
    assert keys == sorted(keys)


@given(situations())
def test_an_unchanged_file_is_left_alone(situation: tuple[Found, dict[str, KnownRecipe]]) -> None:
    """Unless it may have other bytes, a command wants it, or it has to be read for its names."""
    found, known = situation
    planned = plan(replace(found, young=()), known, {}, 1.0)
    for path, version in found.files.items():
        row = known.get(path)
        if row and row.size_and_time == version and row.outcome == "accepted" and not row.reread:
            assert path not in planned.pending or is_template(path)


@given(situations())
def test_no_picture_is_planned_without_a_template_that_can_be_used(situation: Situation) -> None:
    found, known = situation
    planned = plan(found, known, {}, 1.0)
    for path, pending in planned.pending.items():
        if is_dropped(path) and pending.size_and_time:
            folder = template_folder(path, planned.templates)
            assert planned.templates[folder]
            assert path not in found.named.get(f"{folder}/{PICTURES_NAME}", ("", ()))[1]


@given(situations(), st.floats(1.0, 9.0))
def test_a_second_look_at_the_same_changes_nothing(situation: Situation, later: float) -> None:
    """Files become quiet although they are looked at again and again."""
    found, known = situation
    first = plan(found, known, {}, 1.0)
    second = plan(replace(found, rereads=False), known, first.pending, later)
    assert {**first.pending} == {**second.pending}
    changed = {path: v._replace(size=v.size + 3) for path, v in found.files.items()}
    third = plan(replace(found, files=changed), known, first.pending, later)
    for path, pending in third.pending.items():
        before = first.pending.get(path)
        assert pending.first == (before.first if before else later)


@given(situations())
def test_what_is_taken_is_not_planned_again(situation: Situation) -> None:
    found, known = situation
    for _ in range(3):  # templates come before their pictures
        planned = plan(found, known, {}, 1.0)
        found, known = _taken(found, known, planned.pending, planned.templates)
    rest = plan(found, known, {}, 1.0)
    assert not rest.pending
    assert not {path for path in rest.seen if known[path].inbox_id == HERE}


def _template_of(path: str, templates: Any) -> str:
    return str(templates.get(template_folder(path, templates), ""))


def _taken(found: Found, known: dict[str, KnownRecipe], pending: Any, templates: Any) -> Situation:
    known, named = dict(known), dict(found.named)
    for path, entry in pending.items():
        assert isinstance(entry, Pending)
        if entry.size_and_time is None:
            del known[path]
            continue
        template = _template_of(path, templates) if is_dropped(path) else ""
        known[path] = KnownRecipe(entry.size_and_time, "digest", inbox_id=HERE, template=template)
        if is_template(path):
            named[path] = "digest", ()
    return replace(found, named=named, young=()), known
