# The command line with all that producers and consumers need, and nothing of Rucio's server.
#   docker build -f docker/tracetool.Dockerfile -t rucio-trace .
#   docker run --rm --read-only --network none -v "$PWD:/data:ro" rucio-trace verify product.zip …
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
RUN python3 requirements.py client postgresql mysql > requirements.txt \
    && python3 -m venv --without-pip /opt/rucio-trace \
    && /pip/bin/pip --python /opt/rucio-trace/bin/python install --no-cache-dir -c constraints.txt -r requirements.txt
COPY --from=wheel /wheel /wheel
RUN /pip/bin/pip --python /opt/rucio-trace/bin/python install --no-cache-dir --no-deps --root /product /wheel/*.whl

FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/* \
    && useradd --uid 10001 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin rucio-trace \
    && install --directory --owner 10001 --group 10001 /data
COPY --from=environment /opt/rucio-trace /opt/rucio-trace
COPY --from=environment /product /
ENV PATH=/opt/rucio-trace/bin:$PATH PYTHONDONTWRITEBYTECODE=1
WORKDIR /data
USER 10001:10001
ENTRYPOINT ["rucio-trace"]
CMD ["--help"]
