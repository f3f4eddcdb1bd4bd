# nginx from Debian's package, for `cargo xtask gauntlet`. The base image is made by `cargo xtask setup` with debootstrap.
ARG BASE=kaleem-demo/debian:bookworm
FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends nginx-light \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
EXPOSE 80
# The configuration is mounted.
CMD ["nginx", "-c", "/etc/nginx/kaleem/nginx.conf"]
