//! How a RabbitMQ broker is started beside others: with a directory, ports and a port mapper of its own.

use std::path::Path;

/// The broker as its package has it. The one on the path changes the user and the directories; this one does as it is told.
pub const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// The command that speaks to a broker which runs with the same variables.
pub const CONTROL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";

/// The ports of one broker, on loopback.
#[derive(Debug, Clone, Copy)]
pub struct BrokerPorts {
    /// Where clients speak AMQP; the broker is named after it.
    pub amqp: u16,
    /// Where other brokers and [`CONTROL`] speak to it.
    pub distribution: u16,
    /// Where the port mapper `epmd` listens, which tells them of it.
    pub mapper: u16,
}

/// What [`SERVER`] and [`CONTROL`] are told.
///
/// `directory` has its files: `rabbitmq.conf` and `plugins` are the caller's. The cookie, which brokers of one cluster share, is in
/// `home`.
#[must_use]
pub fn environment(directory: &Path, home: &Path, ports: BrokerPorts) -> Vec<(&'static str, String)> {
    let at = |name: &str| directory.join(name).display().to_string();
    vec![
        ("RABBITMQ_NODENAME", format!("kaleem-{}@localhost", ports.amqp)),
        ("RABBITMQ_DIST_PORT", ports.distribution.to_string()),
        ("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf")),
        ("RABBITMQ_CONF_ENV_FILE", at("no-such-file")),
        ("RABBITMQ_MNESIA_BASE", at("mnesia")),
        ("RABBITMQ_LOG_BASE", at("logs")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins")),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}".to_owned()),
        ("ERL_EPMD_PORT", ports.mapper.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("HOME", home.display().to_string()),
        // The script then becomes the broker, so that its id is the starter's to end.
        ("RUNNING_UNDER_SYSTEMD", "1".to_owned()),
    ]
}
