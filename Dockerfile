# syntax=docker/dockerfile:1
ARG BASE=python:3.11-slim
FROM ${BASE}

# Which torch build: empty for the default one (CUDA on Linux), or the address of one of PyTorch's
# indexes, such as the one for CPUs (see pytorch.org, "Start locally").
ARG TORCH_INDEX=

WORKDIR /opt/picowatch
# torch by itself in the first layer: it is the largest and changes least.
COPY constraints.txt ./
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
    "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml README.md LICENSE ./
COPY picowatch ./picowatch
RUN pip install --no-cache-dir --constraint constraints.txt . && useradd --create-home picowatch

USER picowatch
WORKDIR /data
VOLUME ["/data/inbox", "/data/outbox", "/data/models"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s CMD ["picowatch", "status"]
CMD ["picowatch", "run"]
