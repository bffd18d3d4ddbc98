# Processes of Experiments: Python and runonce[worker]. Build it by `make images`, and yours FROM it:
#
#     FROM runonce/worker
#     USER root
#     RUN pip install transformers
#     COPY digits.py /work/
#     USER 65532:65532
#
# BASE_IMAGE: any image with Python 3.11 or later.
# TORCH: none; cuda: the locked wheels of the package index; cpu: the same version of torch from the index TORCH_INDEX, which
# has no hash here, and all that it needs from the package index, with hashes.
ARG BASE_IMAGE=python:3.13.14-slim-bookworm@sha256:67a1e1f215ccda113cfc024e8639049257e88f273898f595b61476d128d387e8

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# What changes seldom comes first: the dependencies are installed anew only when their locked versions change.
COPY docker/requirements/tools.txt docker/requirements/worker.txt docker/requirements/torch.txt ./
RUN python -m venv /opt/tools && /opt/tools/bin/pip install -q --require-hashes --only-binary :all: -r tools.txt
# With pip, for the images that are built FROM this one.
RUN python -m venv /opt/runonce \
 && /opt/runonce/bin/pip install -q --require-hashes --only-binary :all: -r worker.txt
ARG TORCH=none
ARG TORCH_INDEX=
RUN case "$TORCH" in \
      none) ;; \
      cuda) /opt/runonce/bin/pip install -q --require-hashes --only-binary :all: -r torch.txt ;; \
      cpu) [ -n "$TORCH_INDEX" ] || { echo "TORCH=cpu needs TORCH_INDEX: the index of torch's CPU wheels" >&2; exit 1; }; \
           awk '/^[a-z]/ {kept = !/^(torch|triton|cuda-|nvidia-)/} kept' torch.txt > needed.txt \
           && /opt/runonce/bin/pip install -q --require-hashes --only-binary :all: -r needed.txt \
           && /opt/runonce/bin/pip install -q --no-deps --only-binary :all: --index-url "$TORCH_INDEX" \
                "$(sed -nE 's/^(torch==[^ ;]+).*/\1/p' torch.txt)" ;; \
      *) echo "TORCH is '$TORCH': none, cpu or cuda is meant" >&2; exit 1 ;; \
    esac
COPY pyproject.toml README.md LICENSE ./
COPY service service
RUN /opt/tools/bin/hatchling build -t wheel -d dist && /opt/runonce/bin/pip install -q --no-deps dist/*.whl
RUN mkdir /opt/runonce/sbom \
 && /opt/tools/bin/cyclonedx-py environment --output-reproducible -o /opt/runonce/sbom/runonce.cdx.json /opt/runonce/bin/python

FROM ${BASE_IMAGE}
ARG VERSION=
ARG REVISION=
ARG SOURCE=
ARG TORCH=none
LABEL dev.runonce.torch="${TORCH}"
LABEL org.opencontainers.image.title="runonce worker" \
      org.opencontainers.image.description="Runs one process of an Experiment" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
# A name for the user: torch asks for it.
RUN groupadd --gid 65532 runonce && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin runonce \
 && mkdir /work
COPY --from=build /opt/runonce /opt/runonce
ENV PATH=/opt/runonce/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Experiments are started here: what lies here can be imported.
WORKDIR /work
USER 65532:65532
ENTRYPOINT ["runonce"]
CMD ["worker"]
