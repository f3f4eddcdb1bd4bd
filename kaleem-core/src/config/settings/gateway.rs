//! What is said of a service's gateway, and what of it cannot be meant.

use std::net::IpAddr;

use super::{ProtocolName, ProxyProtocolName, ServiceSettings, StrategyName};
use crate::names::ServiceName;

/// The key that cannot be meant, why, and what to do.
pub(super) fn problem(name: &ServiceName, service: &ServiceSettings) -> Option<(&'static str, String, String)> {
    let out = matches!(service.proxy_protocol, Some(ProxyProtocolName::Out | ProxyProtocolName::Both));
    if out && service.protocol != Some(ProtocolName::Tcp) {
        let reason = format!("`proxy-protocol` of `{name}` tells the client to the service, which works for connections alone");
        return Some(("proxy-protocol", reason, "set `protocol = \"tcp\"` beside it, or `proxy-protocol = \"in\"`".to_owned()));
    }
    let behind = matches!(service.strategy, Some(StrategyName::BlueGreen | StrategyName::Rolling));
    if service.gateway == Some(false) && behind {
        let reason = format!("`{name}` is to have no gateway, and its strategy needs one");
        return Some(("gateway", reason, "remove `gateway = false`, or set `strategy = \"recreate\"`".to_owned()));
    }
    if let Some(wrong) = service.trusted_proxies.iter().flatten().find(|network| !is_network(network)) {
        let reason = format!("`trusted-proxies` of `{name}` has `{wrong}`, which is no network");
        return Some(("trusted-proxies", reason, "write networks such as `10.0.0.0/8` or addresses such as `192.0.2.7`".to_owned()));
    }
    if service.batch == Some(0) {
        return Some(("batch", format!("`batch` of `{name}` is 0, so nothing would ever be replaced"), "write 1 or more".to_owned()));
    }
    if (service.max_surge, service.max_unavailable) == (Some(0), Some(0)) {
        let reason = format!("`{name}` may have neither one instance more nor one less, so nothing could be replaced");
        return Some(("max-surge", reason, "let `max-surge` or `max-unavailable` be 1 or more".to_owned()));
    }
    if service.max_error_percent.is_some_and(|percent| percent > 100) {
        let reason = format!("`max-error-percent` of `{name}` is more than 100");
        return Some(("max-error-percent", reason, "write a number from 0 to 100".to_owned()));
    }
    None
}

fn is_network(text: &str) -> bool {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let whole = if address.is_ipv4() { 32 } else { 128 };
    bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= whole))
}
