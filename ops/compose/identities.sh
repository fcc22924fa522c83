#!/bin/sh
# Once, in the container `identities`: what proves the nodes to each other (on the volume of each), and a
# certificate of their own for localhost, the same on all.
set -eu
for node in a b c; do
    mkdir -p "/nodes/$node"
done
cd /nodes
run() { # run NODE ARGUMENT…: its command line, on its volume
    node=$1
    shift
    rm -rf /var/lib/pemberley && ln -s "/nodes/$node" /var/lib/pemberley
    NODE_NAME=$node pemberley "$@"
}
if [ ! -e a/cluster/ca.pem ]; then
    run a cluster init derby
    for node in b c; do
        run a cluster join-token "$node" > /tmp/token
        run "$node" cluster join < /tmp/token
        rm /tmp/token
    done
fi
if [ ! -e a/localhost.pem ]; then
    apt-get -qq update && apt-get -qq install -y --no-install-recommends openssl >/dev/null
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -keyout a/localhost.key -out a/localhost.pem 2>/dev/null
    for node in b c; do
        cp a/localhost.key a/localhost.pem "$node/"
    done
fi
chown -R 5222:5222 a b c
