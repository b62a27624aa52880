# ActiveMQ with STOMP, to which Rucio's hermes sends its messages. The password comes from /federation/broker.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
RUN mkdir -p /usr/share/man/man1 \
    && apt-get update \
    && apt-get install --yes --no-install-recommends activemq default-jre-headless \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
    && useradd --uid 10001 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin broker
COPY docker/federation/activemq.xml /etc/activemq/federation.xml
USER 10001:10001
EXPOSE 61613
# Without a password the broker must answer, with a refusal.
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/61613 && printf 'CONNECT\\naccept-version:1.2\\nhost:x\\n\\n\\0' >&3 && read -r -t 5 answer <&3 && [ \"$answer\" = ERROR ]"]
CMD ["java", "-Xmx256M", "-Djava.io.tmpdir=/tmp", "-Dactivemq.home=/usr/share/activemq", "-Dactivemq.base=/tmp", \
     "-Dactivemq.conf=/etc/activemq", "-Dactivemq.data=/tmp", "-jar", "/usr/share/activemq/bin/activemq.jar", \
     "start", "xbean:file:/etc/activemq/federation.xml"]
