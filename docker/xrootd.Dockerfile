# An XRootD server without access control, for a private network: `root://`, ADLER32, third-party copy.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends xrootd-client xrootd-server \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
    && useradd --uid 10001 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin storage \
    && install --directory --owner 10001 --group 10001 /data /data/rucio
COPY docker/federation/xrootd.cfg /etc/xrootd/federation.cfg
VOLUME /data
USER 10001:10001
EXPOSE 1094
HEALTHCHECK --interval=15s --timeout=10s --start-period=15s CMD ["xrdfs", "root://127.0.0.1:1094", "stat", "/rucio"]
CMD ["xrootd", "-I", "v4", "-c", "/etc/xrootd/federation.cfg", "-n", "storage"]
