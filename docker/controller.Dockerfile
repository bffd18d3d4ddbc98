# The controller: no torch, no compiler, no shell script. Build it by `make images`.
#
# BASE_IMAGE: any image with Python 3.11 or later, for those who have a base of their own.
ARG BASE_IMAGE=python:3.13.14-slim-bookworm@sha256:67a1e1f215ccda113cfc024e8639049257e88f273898f595b61476d128d387e8

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# What changes seldom comes first: the dependencies are installed anew only when their locked versions change.
COPY docker/requirements/tools.txt docker/requirements/controller.txt ./
RUN python -m venv /opt/tools && /opt/tools/bin/pip install -q --require-hashes --only-binary :all: -r tools.txt
RUN python -m venv --without-pip /opt/runonce \
 && /opt/tools/bin/pip --python /opt/runonce/bin/python install -q --require-hashes --only-binary :all: -r controller.txt
COPY pyproject.toml README.md LICENSE ./
COPY service service
RUN /opt/tools/bin/hatchling build -t wheel -d dist \
 && /opt/tools/bin/pip --python /opt/runonce/bin/python install -q --no-deps dist/*.whl
RUN mkdir /opt/runonce/sbom \
 && /opt/tools/bin/cyclonedx-py environment --output-reproducible -o /opt/runonce/sbom/runonce.cdx.json /opt/runonce/bin/python

FROM ${BASE_IMAGE}
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="runonce controller" \
      org.opencontainers.image.description="Watches Experiments and makes each result only once" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
COPY --from=build /opt/runonce /opt/runonce
ENV PATH=/opt/runonce/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 65532:65532
ENTRYPOINT ["runonce"]
CMD ["controller"]
