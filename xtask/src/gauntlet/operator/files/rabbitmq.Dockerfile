# RabbitMQ from Debian's package, with the ports and the volume that the official image declares.
ARG BASE=kaleem-demo/debian:bookworm
FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends rabbitmq-server procps \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && rabbitmq-plugins --offline enable rabbitmq_management
VOLUME /var/lib/rabbitmq
EXPOSE 4369 5671 5672 15671 15672 25672
CMD ["rabbitmq-server"]
