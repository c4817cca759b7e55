# One image for every role: metagate operator | admission | serve | migrate | crds.
#   make image                      builds both targets with docker, podman or buildah
#   docker build .                  works too: without build/wheels the first stage downloads what the lock file names
# The hashes of the lock file are checked in here, whoever downloaded the wheels, and from then on no index is asked.
ARG BASE_IMAGE=docker.io/library/debian:trixie-slim

FROM ${BASE_IMAGE} AS dependencies
RUN python3 -c 'import venv, ensurepip' 2>/dev/null \
    || { apt-get update && apt-get install -y --no-install-recommends python3-venv ca-certificates; }
RUN python3 -m venv /tool && python3 -m venv --without-pip /opt/metagate
# The second source may be absent: a pattern that matches nothing is no error as long as the first one is there.
COPY requirements.lock build/wheels/*.whl /wheels/
RUN set -eu; cd /wheels; set -- *.whl; \
    if [ -e "$1" ]; then offline="--no-index --find-links /wheels"; else offline=""; fi; \
    /tool/bin/pip download -q --disable-pip-version-check $offline --only-binary :all: --no-deps --require-hashes \
        -r requirements.lock -d /verified
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/verified PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY pyproject.toml /src/
RUN python3 -c 'import tomllib; extras = tomllib.load(open("/src/pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
        print(*(each for name in ("api", "operator", "interrogate", "depotgate", "delegate", "cogni", "otel") for each in extras[name] if not each.startswith("metagate[")), sep="\n")' \
        > /src/needed.txt \
    && /tool/bin/pip --python /opt/metagate/bin/python install -q -r /src/needed.txt

FROM dependencies AS code
COPY README.md LICENSE deploy/sbom.py /src/
COPY crds /src/crds
COPY store /src/store
COPY operator /src/operator
COPY api /src/api
COPY kit /src/kit
COPY gates /src/gates
COPY client /src/client
COPY cli /src/cli
COPY examples/demo /src/examples/demo
# Only what is new, here and below, so that images share their layers and an edit changes a small one.
RUN set -eu; touch /before; sleep 1; mkdir /new; \
    /tool/bin/pip --python /opt/metagate/bin/python install -q "/src[api,operator,interrogate,depotgate,delegate,cogni,otel]"; \
    # The client alone, one file that any image with a Python can take.
    mkdir /tmp/client; cp -r /src/client/metagate_client /tmp/client/; rm -rf /tmp/client/metagate_client/__pycache__; \
    printf 'import sys\nfrom metagate_client.main import main\nsys.exit(main())\n' > /tmp/client/__main__.py; \
    python3 -m zipapp /tmp/client -c -p "/usr/bin/env python3" -o /opt/metagate/metagate.pyz; \
    /opt/metagate/bin/python /src/sbom.py --dpkg > /opt/metagate/sbom.cdx.json; \
    cd /opt/metagate; find . -newer /before ! -type d -print0 | tar -c --null -T - | tar -x -C /new

FROM code AS postgres
RUN set -eu; touch /before; sleep 1; rm -r /new; mkdir /new; \
    /tool/bin/pip --python /opt/metagate/bin/python install -q "/src[api,operator,interrogate,depotgate,delegate,cogni,otel,embedded]"; \
    /opt/metagate/bin/python /src/sbom.py --dpkg > /opt/metagate/sbom.cdx.json; \
    cd /opt/metagate; find . -newer /before ! -type d -print0 | tar -c --null -T - | tar -x -C /new

FROM ${BASE_IMAGE} AS runtime
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
COPY --from=dependencies /opt/metagate /opt/metagate
COPY --from=code /new /opt/metagate
# Last, because they change with every commit.
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="metagate" \
      org.opencontainers.image.description="The bootstrap authority for agent systems on Kubernetes" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# The same with the binaries of PostgreSQL, for the trial database of the chart and for `metagate dev`.
FROM runtime AS embedded
COPY --from=postgres /new /opt/metagate

# What is built when nobody names a target.
FROM runtime
