# Redis from Debian's package. The base image is made by `cargo xtask setup` with debootstrap.
ARG BASE=kaleem-demo/debian:bookworm
FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && mkdir -p /data && chown redis:redis /data
VOLUME /data
WORKDIR /data
USER redis
EXPOSE 6379
# Other containers are to reach it, and only they: the compose file publishes no port.
CMD ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data", "--save", "60", "1"]
