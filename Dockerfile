# docmill's services and the worker for machines without a GPU:
#   docker build --target service .       migrate, dispatcher, flower and all other commands
#   docker build --target worker-cpu .    the same with the CPU engines
# Dockerfile.gpu builds the worker for NVIDIA GPUs. No image contains the embedded broker; a cluster uses Redis or Valkey.

FROM python:3.12.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/docmill
WORKDIR /src
COPY . .
RUN /opt/docmill/bin/pip install ".[postgres]"

FROM build AS build-cpu
RUN /opt/docmill/bin/pip install ".[postgres,cpu]"

FROM python:3.12.11-slim-bookworm AS base
RUN groupadd --gid 10001 docmill \
    && useradd --uid 10001 --gid docmill --home-dir /var/lib/docmill --create-home --shell /usr/sbin/nologin docmill
ENV PATH=/opt/docmill/bin:$PATH \
    DOCMILL_HOME=/var/lib/docmill \
    HOME=/var/lib/docmill \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/docmill
USER 10001:10001
ENTRYPOINT ["docmill"]
CMD ["--help"]

FROM base AS worker-cpu
USER 0
# libgomp1 is needed for llama.cpp's threads. Its version is fixed by the release of the base image.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
USER 10001:10001
COPY --from=build-cpu /opt/docmill /opt/docmill

FROM base AS service
COPY --from=build /opt/docmill /opt/docmill
