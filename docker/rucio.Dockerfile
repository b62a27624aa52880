# A Rucio with the policy package and the metadata plugins: server (the default command), daemons and client; XRootD's
# client is there because Rucio's own protocol for `root://` calls it.
#   docker build -f docker/rucio.Dockerfile -t rucio-trace-rucio .
#   docker run --read-only --tmpfs /tmp -v …:/opt/rucio/etc:ro -p 127.0.0.1:8080:8080 rucio-trace-rucio
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
RUN python3 requirements.py sandbox > requirements.txt \
    && /pip/bin/pip --python /opt/rucio-trace/bin/python install --no-cache-dir -c constraints.txt -r requirements.txt
COPY --from=wheel /wheel /wheel
RUN /pip/bin/pip --python /opt/rucio-trace/bin/python install --no-cache-dir --no-deps --root /product /wheel/*.whl

FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 xrootd-client \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/* \
    && useradd --uid 10001 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin rucio-trace \
    && for volume in broker client database server site-a site-b; do \
        install --directory --owner 10001 --group 10001 --mode 700 /federation/$volume; \
    done \
    && install --directory --owner 10001 --group 10001 /federation/trust
COPY --from=environment /opt/rucio-trace /opt/rucio-trace
COPY --from=environment /product /
ENV PATH=/opt/rucio-trace/bin:$PATH PYTHONDONTWRITEBYTECODE=1 RUCIO_HOME=/opt/rucio
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/ping', timeout=8)"]
# Never --preload: a connection to the database must not cross the fork.
CMD ["gunicorn", "--bind", "0.0.0.0:8080", "--workers", "2", "--threads", "8", "--worker-tmp-dir", "/dev/shm", \
     "--no-control-socket", "--access-logfile", "-", "rucio.web.rest.main:application"]
