# A stand-in for FTS3 that copies with XRootD's third-party copy. Not FTS3: no queue worth the name, no credentials.
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

FROM python AS environment
COPY --from=wheel /wheel /wheel
RUN /pip/bin/pip install --no-cache-dir --no-deps --target /product /wheel/*.whl

FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 xrootd-client \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/* \
    && useradd --uid 10001 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin rucio-trace
COPY --from=environment /product /opt/rucio-trace
ENV PYTHONPATH=/opt/rucio-trace PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8446
HEALTHCHECK --interval=15s --timeout=10s --start-period=15s \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8446/whoami', timeout=8)"]
CMD ["python3", "-m", "rucio_trace_sandbox.fts", "0.0.0.0", "8446"]
