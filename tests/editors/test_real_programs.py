"""Real programs, each driven as its user drives it: one save is one run of the final bytes.

A program's session is a context that gives a function: called with a prompt, it has the
program make the recipe file hold it.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.editors.desk import desk_of, recipe
from tests.house import House, wait_for
from tests.observers.screen import Terminal, in_terminal

SHELL_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program works: on a recipe in the inbox, with `elsewhere` for what lies outside."""

    recipe: Path
    elsewhere: Path


Save = Callable[[str], None]
Session = Callable[[Place], AbstractContextManager[Save]]


@dataclass(frozen=True, slots=True)
class Program:
    """One program in one of its ways of saving."""

    name: str
    session: Session
    makes_new_files: bool = True
    file: str = "a.yaml"

    @property
    def needs(self) -> str:
        return self.name.split()[0].rstrip(",")


# -- programs that are run once for each save


@contextmanager
def _script(script: str, place: Place) -> Iterator[Save]:
    """Return a shell script: $NEW has the new text for $RECIPE, with $PROMPT in it."""

    def save(prompt: str) -> None:
        run_script(script, place, NEW=_written_elsewhere(place, prompt), PROMPT=prompt)

    yield save


def run_script(script: str, place: Place, **values: str) -> None:
    git = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(
        ["sh", "-ec", script],
        cwd=place.recipe.parent,
        env={**os.environ, **git, "RECIPE": str(place.recipe), **values},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=SHELL_SECONDS,
        check=True,
    )


def _written_elsewhere(place: Place, prompt: str) -> str:
    """Write a recipe into a new folder, and return its path."""
    folder = place.elsewhere / str(len([*place.elsewhere.iterdir()]))
    folder.mkdir()
    (folder / place.recipe.name).write_text(recipe(prompt))
    return str(folder / place.recipe.name)


# -- programs that stay open


def _opened(place: Place, *command: str) -> AbstractContextManager[Terminal]:
    environment = {**os.environ, "TERM": "vt100"}
    return in_terminal(
        *command, place.recipe.name, cwd=place.recipe.parent, environment=environment
    )


@contextmanager
def _vim(options: str, place: Place) -> Iterator[Save]:
    """Without a vimrc. Its `backupskip` holds /tmp/*, where no backup would be made at all."""
    settings = f"set backupskip= {options}"
    command = ("vim", "-N", "-u", "NONE", "-i", "NONE", "-c", settings)
    with _opened(place, *command) as terminal:
        terminal.wait_until_written(place.recipe.name)

        def save(prompt: str) -> None:
            lines = recipe(prompt).splitlines()
            terminal.type(f":call setline(1, {lines})\r:w\r")
            _wait_until_saved(place, prompt)

        yield save
        terminal.type(":q\r")


@contextmanager
def _nano(flags: tuple[str, ...], place: Place) -> Iterator[Save]:
    with _opened(place, "nano", "--ignorercfiles", *flags) as terminal:
        terminal.wait_until_written("nano")

        def save(prompt: str) -> None:
            first_line, cut_to_the_end, write_out = "\x1b\\", "\x1bt", "\x0f"
            text = recipe(prompt).removesuffix("\n")  # nano adds the last line's end itself
            terminal.type(first_line + cut_to_the_end + text.replace("\n", "\r"))
            terminal.type(write_out + "\r")
            _wait_until_saved(place, prompt)

        yield save
        terminal.type("\x18")


@contextmanager
def _emacs(place: Place) -> Iterator[Save]:
    """Save by Emacs, with `.#x`, `#x#` and `x~`; it would make no backups of files below /tmp."""
    folder, name = place.recipe.parent, place.recipe.name
    had_been_there = place.recipe.exists()
    options = "(progn (electric-indent-mode -1) (setq backup-enable-predicate (lambda (name) t)))"
    with _opened(place, "emacs", "-nw", "-Q", "--eval", options) as terminal:
        terminal.wait_until_written(name)

        def save(prompt: str) -> None:
            mark_all, cut = "\x18h", "\x17"
            terminal.type(mark_all + cut + recipe(prompt).replace("\n", "\r"))
            wait_for((folder / f".#{name}").is_symlink, "emacs's lock")
            terminal.type("\x1bxdo-auto-save\r")
            wait_for((folder / f"#{name}#").exists, "emacs's auto-save")
            terminal.type("\x18\x13")
            _wait_until_saved(place, prompt)

        yield save
        terminal.type("\x18\x03")
    assert (folder / f"{name}~").exists() or not had_been_there


def _wait_until_saved(place: Place, prompt: str) -> None:
    def holds() -> bool:
        try:
            return place.recipe.read_text() == recipe(prompt)
        except FileNotFoundError:  # between a backup and the new file
            return False

    wait_for(holds, f"{place.recipe} with {prompt!r}")


# -- the table


def _shell(name: str, script: str, *, edits: bool = False, file: str = "a.yaml") -> Program:
    """A program that is run once for each save; one that `edits` cannot make a file."""
    return Program(name, partial(_script, script), makes_new_files=not edits, file=file)


# Another one for each save: polling cannot see an edit that keeps size and time.
OLD_TIME = 'touch -d "2001-02-03 04:05:0$(basename "${NEW%/*}")" "$NEW"; '
# First by a clone, later by checking out a branch.
GIT = """
git() { command git -c user.name=x -c user.email=x@example.org -c init.defaultBranch=main "$@"; }
origin="${NEW%/*/*}/origin"; branch="b$(basename "${NEW%/*}")"
[ -e "$origin" ] || git init -q "$origin"
(cd "$origin"; git checkout -q -b "$branch"; cp "$NEW" .; git add .; git commit -qm "$NEW")
if [ -e .git ]; then git fetch -q; git checkout -q "$branch"
else git clone -q -b "$branch" "$origin" .; fi
"""
INSIDE = 'inside="_$(basename "${NEW%/*}")"'
LINK = 'ln -f "$RECIPE" "$NEW.link"'
OWN = '[ -e _own ] || { : > _own; ln -s _own "$RECIPE"; }'
# Each prefix would be a valid recipe.
SLOWLY = '{ echo "prompt: $PROMPT"; sleep 0.3; printf "steps: 3"; sleep 0.3; echo 0; } >'

# One of each way of saving: curl and ed write like cp, patch like sed, perl and unzip like install.
PROGRAMS = [
    Program("vim", partial(_vim, "writebackup backupcopy=no")),
    Program("vim, backups by copy", partial(_vim, "backup backupcopy=yes")),
    Program("vim, no backups", partial(_vim, "nobackup nowritebackup")),
    Program("nano", partial(_nano, ())),
    Program("nano -B -G", partial(_nano, ("-B", "-G"))),
    Program("emacs", _emacs),
    _shell("git checkout", GIT),
    _shell("mv", 'mv "$NEW" "$RECIPE"'),
    _shell("cp", 'cp "$NEW" "$RECIPE"'),
    _shell("cp -p", f'{OLD_TIME}cp -p "$NEW" "$RECIPE"'),
    _shell("ln", 'ln -f "$NEW" "$RECIPE"'),
    _shell("ln -s", f'{INSIDE}; cp "$NEW" "$inside"; ln -sf "$inside" "$RECIPE"'),
    _shell("install", 'install -m 644 "$NEW" "$RECIPE"'),
    _shell("rsync -a", f'{OLD_TIME}rsync -aI "$NEW" "$RECIPE"'),
    _shell("rsync --inplace", 'rsync -I --inplace "$NEW" "$RECIPE"'),
    _shell("gio save", 'gio save "$RECIPE" < "$NEW"'),
    # -m gives the file the time of now: archives hold it in steps of a second, and polling cannot
    # tell two saves of one size and one time apart.
    _shell("tar x", '(cd "${NEW%/*}"; tar cf t.tar *.yaml); tar xmf "${NEW%/*}/t.tar"'),
    _shell("sed -i", 'sed -i "1s/.*/prompt: $PROMPT/" "$RECIPE"', edits=True),
    _shell("perl -i.bak", 'perl -i.bak -pe "s/^prompt.*/prompt: $PROMPT/" "$RECIPE"', edits=True),
    _shell("sh >>", 'echo "$PROMPT" >> "$RECIPE"', file="a.txt"),
    _shell("sh line by line", f'{SLOWLY} "$RECIPE"'),
    _shell("sh line by line into a hard link", f'{LINK}; {SLOWLY} "$NEW.link"', edits=True),
    _shell("sh line by line into what a link leads to", f"{OWN}; {SLOWLY} _own"),
]

# They read a recipe, or change no byte and no time of it.
READERS = {
    "cat": 'cat "$RECIPE"',
    "git": "git init -q; git add .; git status; git diff",
    "chmod": 'chmod 600 "$RECIPE"',
    "mv": 'cp -p "$RECIPE" "$ELSEWHERE/a"; mv "$ELSEWHERE/a" "$RECIPE"',
    "ln": 'ln "$RECIPE" "$ELSEWHERE/ln"',
    "touch -a": 'touch -a "$RECIPE"',
    "sh": ': >> "$RECIPE"',
}


def test_each_save_of_a_program_is_one_run(house: House) -> None:
    """All save a new recipe, then twice more, at the same time; an open editor has a rest, too."""
    both = [
        (program, place_at(house, f"{number}/{program.file}"))
        for number, program in enumerate(PROGRAMS)
        if shutil.which(program.needs)
    ]
    names = [place.recipe.relative_to(house.inbox).as_posix() for _, place in both]
    with desk_of(house) as desk, ExitStack() as sessions:
        for program, place in both:
            _save_first(program, place)
        for name in names:
            desk.expect_run(name, "a red circle")
        saves = [sessions.enter_context(program.session(place)) for program, place in both]
        desk.make_another()
        for prompt in ("a red square", "a red sphere"):
            with ThreadPoolExecutor() as hands:
                list(hands.map(lambda save, prompt=prompt: save(prompt), saves))
            for name in names:
                desk.expect_run(name, prompt)
        sessions.close()
        desk.expect_nothing_more()
    skip_if_missing({program.needs for program in PROGRAMS})


def test_reading_a_recipe_makes_nothing(house: House) -> None:
    """Viewers, backups, and changes of the inode are not saves."""
    places = {name: place_at(house, f"{name}/a.yaml") for name in READERS}
    with desk_of(house) as desk:
        for place in places.values():
            place.recipe.write_text(recipe("a red circle"))
        for name in places:
            desk.expect_run(f"{name}/a.yaml", "a red circle")
        for name, place in places.items():
            if shutil.which(name.split()[0]):
                run_script(READERS[name], place, ELSEWHERE=str(place.elsewhere))
        desk.expect_nothing_more()
    skip_if_missing({name.split()[0] for name in READERS})


def place_at(house: House, name: str) -> Place:
    """A recipe's place, with folders around it."""
    recipe = house.inbox / name
    elsewhere = house.folder / f"elsewhere-{recipe.parent.name}"
    for folder in (recipe.parent, elsewhere):
        folder.mkdir()
    return Place(recipe, elsewhere)


def skip_if_missing(programs: set[str]) -> None:
    if missing := sorted(program for program in programs if not shutil.which(program)):
        pytest.skip(f"all others are right; not installed: {', '.join(missing)}")


def _save_first(program: Program, place: Place) -> None:
    if program.makes_new_files:
        with program.session(place) as save:
            save("a red circle")
    else:
        place.recipe.write_text(recipe("a red circle"))
