# picowatch in a container: docs/docker.md. `make up` chooses the arguments.
# The digest of the index of all platforms, of 2026-08-25, as docker-library/repo-info lists it.
ARG BASE=python:3.11-slim-bookworm@sha256:0bee7276f83efd4a1ee05bbbf4281d95ed28e079220a9457f25a93e3f1e3c31b
FROM ${BASE}

# A virtual environment of root's: picowatch cannot change its own program.
ENV PATH=/opt/picowatch/bin:$PATH

# g++ is what compile: true needs on a card. Empty: none, and a smaller image.
ARG COMPILER=
# Its version is that of the base's Debian release.
# hadolint ignore=DL3008
RUN [ -z "$COMPILER" ] || { apt-get update \
    && apt-get install --yes --no-install-recommends "$COMPILER" \
    && rm -rf /var/lib/apt/lists/*; }

# torch by itself, in a layer that only these lines change: it has gigabytes.
# cpu; cuda: pip's default build, for current cards; cu126: for cards before Turing, as Pascal.
ARG TORCH=cpu
ARG TORCH_VERSION=2.13.0
# Empty: the index that pip is set to, whatever TORCH says.
ARG TORCH_INDEXES=https://download.pytorch.org/whl
# An index of one's own: --secret id=pip,src=pip.conf
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    index="${TORCH_INDEXES:+$TORCH_INDEXES/$TORCH}"; [ "$TORCH" != cuda ] || index=; \
    python3 -m venv /opt/picowatch \
    && PIP_INDEX_URL="$index" pip install "torch==$TORCH_VERSION"

WORKDIR /opt/picowatch/source
COPY constraints.txt pyproject.toml ./
# With what builds picowatch itself, so that the last layer needs no network.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    python3 -c 'import tomllib; whole = tomllib.load(open("pyproject.toml", "rb")); \
project = whole["project"]; \
print(*project["dependencies"], *project["optional-dependencies"]["metrics"], \
*project["optional-dependencies"]["heic"], *whole["build-system"]["requires"], sep="\n")' > requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt

# Any user may be told to run this (compose's `user:`); this one is for when none is.
RUN useradd --uid 1000 --no-create-home --home-dir /data picowatch \
    && mkdir --mode 1777 /cache \
    && install --directory --owner picowatch /data/inbox /data/outbox /data/models

COPY README.md LICENSE ./
COPY contrib/picowatch.service contrib/picowatch-user.service ./contrib/
COPY picowatch ./picowatch
ARG VERSION=
RUN SETUPTOOLS_SCM_PRETEND_VERSION="$VERSION" \
    pip install --no-deps --no-build-isolation --no-index --no-cache-dir .

LABEL org.opencontainers.image.title="picowatch" \
    org.opencontainers.image.description="Save a recipe, find its pictures: a hot folder for Stable Diffusion" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="$VERSION"

# A foreign number has no home; CUDA's driver keeps there what it compiled.
ENV HOME=/cache XDG_CACHE_HOME=/cache HF_HUB_OFFLINE=1
USER 1000:1000
WORKDIR /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
    CMD ["sh", "-c", "picowatch status --check || [ $? -eq 4 ]"]
ENTRYPOINT ["picowatch"]
CMD ["run"]
