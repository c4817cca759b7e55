# One image for every role: metagate operator | admission | serve | migrate | crds.
#   make image                      builds both targets with docker, podman or buildah
#   docker build .                  works too: without build/wheels the first stage downloads what the lock file names
# No stage after the first sees an index; the hashes of the lock file are checked in here whoever downloaded the wheels.
ARG BASE_IMAGE=docker.io/library/debian:trixie-slim

FROM ${BASE_IMAGE} AS builder
RUN python3 -c 'import venv, ensurepip' 2>/dev/null \
    || { apt-get update && apt-get install -y --no-install-recommends python3-venv ca-certificates; }
RUN python3 -m venv /tool && python3 -m venv --without-pip /opt/metagate
# The second source may be absent: a pattern that matches nothing is no error as long as the first one is there.
COPY requirements.lock build/wheels/*.whl /wheels/
RUN set -eu; cd /wheels; set -- *.whl; \
    if [ -e "$1" ]; then offline="--no-index --find-links /wheels"; else offline=""; fi; \
    /tool/bin/pip download -q --disable-pip-version-check $offline --only-binary :all: --no-deps --require-hashes \
        -r requirements.lock -d /verified
COPY pyproject.toml README.md LICENSE /src/
COPY crds /src/crds
COPY operator /src/operator
COPY api /src/api
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/verified PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN /tool/bin/pip --python /opt/metagate/bin/python install -q "/src[api,operator]"
# The client alone, one file that any image with a Python can take: cp /opt/metagate/metagate.pyz …
RUN mkdir /tmp/client && cp -r /src/api/metagate_client /tmp/client/ && rm -rf /tmp/client/metagate_client/__pycache__ \
    && printf 'import sys\nfrom metagate_client.main import main\nsys.exit(main())\n' > /tmp/client/__main__.py \
    && python3 -m zipapp /tmp/client -c -p "/usr/bin/env python3" -o /opt/metagate/metagate.pyz
COPY deploy/sbom.py /src/
RUN /opt/metagate/bin/python /src/sbom.py --dpkg > /opt/metagate/sbom.cdx.json

FROM builder AS builder-embedded
RUN /tool/bin/pip --python /opt/metagate/bin/python install -q "/src[api,operator,embedded]"
RUN /opt/metagate/bin/python /src/sbom.py --dpkg > /opt/metagate/sbom.cdx.json

FROM ${BASE_IMAGE} AS base
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="metagate" \
      org.opencontainers.image.description="The bootstrap authority for agent systems on Kubernetes" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN command -v python3 >/dev/null \
    || { apt-get update && apt-get install -y --no-install-recommends python3 ca-certificates && rm -rf /var/lib/apt/lists/*; }
# initdb refuses to run as a uid that has no name.
RUN echo 'metagate:x:65532:65532:metagate:/nonexistent:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'metagate:x:65532:' >> /etc/group
ENV PATH=/opt/metagate/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /
USER 65532:65532
STOPSIGNAL SIGTERM
EXPOSE 8000 9090 9443
ENTRYPOINT ["metagate"]
CMD ["--help"]

# The same with the binaries of PostgreSQL, for the trial database of the chart and for `metagate dev`.
FROM base AS embedded
COPY --from=builder-embedded /opt/metagate /opt/metagate

FROM base AS runtime
COPY --from=builder /opt/metagate /opt/metagate
