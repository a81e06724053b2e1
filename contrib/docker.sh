#!/bin/sh
# make up, make down: docs/docker.md.
set -eu
cd "$(dirname "$0")/.."

# The environment goes first, then .env, then what is found here.
found() {
    printenv "$1" > /dev/null || grep -qs "^$1=" .env || export "$1=$2"
}

# Turing's is 7.5; the builds of torch for CUDA 13 do nothing on older cards.
an_old_card() {
    nvidia-smi --query-gpu=compute_cap --format=csv,noheader |
        awk '$1 < 7.5 { old = 1 } END { exit !old }'
}

# The only file that is mounted; with sudo it is still that of who typed it.
settings() {
    echo "# Settings: docs/settings.md. After a change: docker restart ${CONTAINER:-picowatch}" > picowatch.yaml
    if [ -n "${SUDO_UID-}" ]; then chown "$SUDO_UID:${SUDO_GID-}" picowatch.yaml; fi
}

# As pyproject.toml has it, with the commit: the image's build has no git.
version() {
    base=$(sed -n 's/.*fallback_version = "\(.*\)0".*/\1/p' pyproject.toml)
    if commit=$(git rev-parse --short=9 HEAD 2> /dev/null); then
        echo "$base$(git rev-list --count HEAD)+g$commit"
    else
        echo "${base}0"
    fi
}

up() {
    used=cpu other=gpu
    if nvidia-smi > /dev/null 2>&1; then
        used=gpu other=cpu
        if an_old_card; then found TORCH cu126; fi
    fi
    # With sudo the pictures are still those of who typed it.
    found PUID "${SUDO_UID:-$(id -u)}"
    found PGID "${SUDO_GID:-$(id -g)}"
    found VERSION "$(version)"
    # What the image's build needs, and Docker 20 has to be asked for.
    found DOCKER_BUILDKIT 1
    found SETTINGS ./picowatch.yaml
    if [ "${SETTINGS-}" = ./picowatch.yaml ] && [ ! -e picowatch.yaml ]; then settings; fi
    $compose --profile cpu --profile gpu rm --stop --force "$other"
    $compose --profile "$used" up --build --detach
    echo "picowatch is running on the $used. To follow its log: $compose --profile $used logs --follow"
}

down() {
    $compose --profile cpu --profile gpu down
}

# Without the plugin docker only says that it does not know the flag --profile. Debian's and Ubuntu's
# docker-compose is a program of its own.
find_compose() {
    for compose in "docker compose" docker-compose; do
        if $compose version > /dev/null 2>&1; then return; fi
    done
    echo "Neither 'docker compose' nor docker-compose works here: picowatch needs Docker with one." >&2
    echo "Install both as https://docs.docker.com/compose/install/ says, or see docs/service.md." >&2
    exit 1
}

case "${1-}" in
    up | down) find_compose; "$1" ;;
    *) echo "usage: contrib/docker.sh up|down" >&2 && exit 2 ;;
esac
