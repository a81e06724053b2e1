#!/bin/sh
# make release: docs/release.md. The first argument is the folder for the two files, dist/ without one.
set -eu
project=$(cd "$(dirname "$0")/.." && pwd)
dist=${1:-$project/dist}
python=${PYTHON:-$project/.venv/bin/python}
clean=$(mktemp -d)
trap 'rm -rf "$clean"' EXIT

step() {
    echo "== $*"
}

fail() {
    echo "release: $*" >&2
    exit 1
}

step "The version is the tag of this commit; CHANGELOG.md must describe it."
version=$(cd "$project" && "$python" -m hatchling version)
case $version in
    *+*) fail "$version is no release. Commit everything, and tag the commit: git tag v0.3.0" ;;
esac
grep -q "^## \[$version\]" "$project/CHANGELOG.md" ||
    fail "CHANGELOG.md has no heading '## [$version]'. Write one, or change the version."

step "Building the sdist, and the wheel from it."
rm -rf "$dist"
"$python" -m build --no-isolation --outdir "$dist" "$project"
"$python" -m twine check --strict "$dist"/*
wheel=$(echo "$dist"/*-"$version"-*.whl)

step "Installing the wheel into a new environment, with the versions of constraints.txt."
"$python" -m venv "$clean/env"
# Compiling all of torch to bytecode takes longer than what one picture needs of it.
pip="$clean/env/bin/python -m pip install --quiet --no-compile"
$pip "$(grep '^torch==' "$project/constraints.txt")"
$pip --constraint "$project/constraints.txt" "$wheel"
# As the remedies of picowatch say it: no index needs to have the name.
$pip 'picowatch-diffusion[metrics]'

step "Using it as a user does."
cd "$clean"
shown=$(env/bin/picowatch --version)
[ "$shown" = "picowatch $version" ] || fail "it calls itself '$shown', not 'picowatch $version'."
env/bin/picowatch init pictures
cd pictures
picture=$(echo "a red circle on a blue background" | ../env/bin/picowatch make -)
[ -s "$picture" ] || fail "'picowatch make' printed '$picture', which is no picture."
[ -s ../env/share/picowatch/picowatch.service ] || fail "the systemd unit is missing."

step "picowatch $version is ready. Upload these two files (docs/release.md):"
ls "$dist"/*
