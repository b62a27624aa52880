#!/bin/sh
# Make the cluster if there is none, then become its server. A making that was broken off begins again.
set -eu
cluster=/data/cluster
secrets=/federation/database

make_cluster() {
    new=/data/new
    rm -rf "$new"
    initdb --pgdata "$new" --username postgres --auth-local trust --auth-host scram-sha-256 --encoding UTF8 --locale C.UTF-8
    echo "host all all all scram-sha-256" >> "$new/pg_hba.conf"
    pg_ctl --pgdata "$new" --wait --options "-c listen_addresses= -k /tmp" start
    psql --host /tmp --username postgres --quiet --set ON_ERROR_STOP=1 \
        --set rucio="$(cat $secrets/rucio.password)" \
        --set traces="$(cat $secrets/traces.password)" \
        --set reader="$(cat $secrets/reader.password)" <<'SQL'
CREATE ROLE rucio LOGIN PASSWORD :'rucio';
CREATE ROLE traces LOGIN PASSWORD :'traces';
CREATE ROLE reader LOGIN PASSWORD :'reader';
CREATE DATABASE rucio OWNER rucio;
CREATE DATABASE traces OWNER traces;
\connect traces
ALTER DEFAULT PRIVILEGES FOR ROLE traces GRANT SELECT ON TABLES TO reader;
SQL
    pg_ctl --pgdata "$new" --wait --mode fast stop
    mv "$new" "$cluster"
}

[ -d "$cluster" ] || make_cluster
exec postgres -D "$cluster" -k /tmp -c listen_addresses='*' -c max_connections=200
