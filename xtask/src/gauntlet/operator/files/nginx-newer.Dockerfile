# An nginx that knows `server NAME resolve` (1.27.3 and newer), from Debian's coming release.
ARG BASE=kaleem-demo/debian:bookworm
FROM ${BASE}
ARG MIRROR
RUN echo "deb [check-valid-until=no] ${MIRROR} forky main" > /etc/apt/sources.list.d/newer.list \
    && apt-get update \
    && apt-get install --yes --no-install-recommends --target-release forky nginx-light \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
EXPOSE 80
CMD ["nginx", "-c", "/etc/nginx/kaleem/nginx.conf"]
