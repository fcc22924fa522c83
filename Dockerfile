# Pemberley in a container: Debian 12, one stage that builds, one that runs.
#
#   docker build -t pemberley .
#   docker run --security-opt seccomp=ops/seccomp.json --ulimit nofile=1048576 --stop-timeout 45 \
#       -v /etc/pemberley:/etc/pemberley:ro -v pemberley:/var/lib/pemberley \
#       -p 5222:5222 -p 5223:5223 pemberley
#
# The engine's own seccomp profile forbids io_uring: with it the node says so and runs over epoll.
# The config and certificates come from outside (/etc/pemberley, readable for user 5222); the log
# goes to stderr. Shards follow the container's quota (--cpus). For Prometheus from outside give
# listen.metrics.address an address of the container.
FROM debian:12-slim AS build
COPY . /src
WORKDIR /src
RUN ops/install build
RUN cmake --preset release -DPEMBERLEY_TESTS=OFF -DPEMBERLEY_BENCH=OFF && \
    cmake --build --preset release --target pemberley pemberley-shard pemberley-store

FROM debian:12-slim
COPY ops/install ops/packages.txt /src/ops/
RUN /src/ops/install run && rm -rf /src /var/lib/apt/lists/*
RUN useradd --system --uid 5222 --home-dir /var/lib/pemberley pemberley && \
    install -d -o pemberley -g pemberley -m 0700 /var/lib/pemberley /run/pemberley
COPY --from=build /src/build/release/bin/pemberley /src/build/release/bin/pemberley-shard \
    /src/build/release/bin/pemberley-store /usr/lib/pemberley/
COPY ops/livez /usr/lib/pemberley/
RUN ln -s /usr/lib/pemberley/pemberley /usr/bin/pemberley
USER pemberley
VOLUME /var/lib/pemberley
EXPOSE 5222 5223
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=6 CMD ["/usr/lib/pemberley/livez"]
ENTRYPOINT ["/usr/lib/pemberley/pemberley"]
CMD ["run"]
