# The image of contrib/raycluster.yaml: picowatch's own (../Dockerfile) with Ray. docs/scale.md.
ARG PICOWATCH=picowatch:cuda
FROM ${PICOWATCH}

# hadolint ignore=DL3066
USER root
# KubeRay's health checks call wget; their version is that of the base's Debian release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*
# With [default], which has the agent that those checks ask, and the autoscaler.
RUN pip install --no-cache-dir --constraint /opt/picowatch/source/constraints.txt "ray[default]"
USER 1000:1000
ENTRYPOINT []
CMD ["bash"]
