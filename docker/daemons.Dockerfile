# The recorder. It needs RUCIO_HOME with a server's rucio.cfg, and its settings in RUCIO_TRACE_CONFIG.
#   docker build -f docker/daemons.Dockerfile -t rucio-trace-daemons .
#   docker run --read-only --tmpfs /tmp -v …:/opt/rucio/etc:ro -v …:/etc/rucio-trace:ro rucio-trace-daemons --threads 4
ARG BASE=debian:bookworm-slim

# The stages `python` and `wheel` are the same in every Dockerfile here, so the builder makes each once.
FROM ${BASE} AS python
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3-venv \
    && python3 -m venv /pip

FROM python AS wheel
WORKDIR /source
COPY constraints.txt ./
RUN /pip/bin/pip install --no-cache-dir -c constraints.txt hatchling
COPY LICENSE README.md pyproject.toml ./
COPY rucio_trace rucio_trace
COPY policies policies
COPY daemons daemons
COPY sandbox sandbox
RUN /pip/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel .

# What changes seldom is a layer of its own, below what changes with every commit.
FROM python AS environment
WORKDIR /source
COPY constraints.txt pyproject.toml docker/requirements.py ./
RUN python3 requirements.py rucio mysql > requirements.txt \
    && python3 -m venv --without-pip /opt/rucio-trace \
    && /pip/bin/pip --python /opt/rucio-trace/bin/python install --no-cache-dir -c constraints.txt -r requirements.txt
COPY --from=wheel /wheel /wheel
RUN /pip/bin/pip --python /opt/rucio-trace/bin/python install --no-cache-dir --no-deps --root /product /wheel/*.whl

FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/* \
    && useradd --uid 10001 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin rucio-trace
COPY --from=environment /opt/rucio-trace /opt/rucio-trace
COPY --from=environment /product /
ENV PATH=/opt/rucio-trace/bin:$PATH PYTHONDONTWRITEBYTECODE=1 RUCIO_HOME=/opt/rucio
USER 10001:10001
# Rucio's own table says when this recorder was last heard of; the lease on what it reads counts too.
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s --retries=2 \
    CMD ["python", "-m", "rucio_trace_daemons.health", "traceability-recorder"]
ENTRYPOINT ["rucio-trace-recorder"]
