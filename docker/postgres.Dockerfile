# PostgreSQL with a database for Rucio and one for the trace store. Passwords come from /federation/database.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-common \
    && sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf \
    && apt-get install --yes --no-install-recommends postgresql-15 \
    && rm -f /etc/ssl/private/ssl-cert-snakeoil.key /etc/ssl/certs/ssl-cert-snakeoil.pem \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
    && useradd --uid 10001 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin database \
    && install --directory --owner 10001 --group 10001 --mode 700 /data
COPY docker/federation/postgres.sh /usr/local/bin/start-postgres
ENV PATH=/usr/lib/postgresql/15/bin:$PATH
VOLUME /data
USER 10001:10001
EXPOSE 5432
# Over TCP: while the cluster is being made it listens on a socket alone.
HEALTHCHECK --interval=5s --timeout=10s --start-period=60s CMD ["pg_isready", "--quiet", "--host", "127.0.0.1"]
# A fast shutdown: clients are disconnected, the rest is written.
STOPSIGNAL SIGINT
CMD ["sh", "/usr/local/bin/start-postgres"]
