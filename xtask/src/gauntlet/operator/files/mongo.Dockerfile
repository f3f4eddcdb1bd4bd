# A server that speaks as MongoDB, as `cargo xtask setup` fetched it. The context is its directory of Python packages.
ARG BASE=kaleem-demo/debian:bookworm
FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY . /opt/packages
ENV PYTHONPATH=/opt/packages HOME=/tmp
VOLUME /data/db
EXPOSE 27017
CMD ["python3", "-m", "secantus", "--host", "0.0.0.0", "--port", "27017", "--storage-path", "/data/db"]
