//! Ports: `[ip:][host:]container[/protocol]` and ranges of them, one long form per container port.

use std::net::IpAddr;

use crate::config::compose::forms::{object, text};
use crate::config::compose::shape::Layer;
use crate::config::compose::tree::{Node, Value};

const REMEDY: &str = "write it as `[address:][host port:]container port[/tcp|/udp]`";

/// A list of ports in short or long form as a list of long forms.
#[expect(clippy::needless_pass_by_value, reason = "short forms have one signature")]
pub(in crate::config::compose) fn expand(layer: &mut Layer<'_>, node: Node) -> Node {
    let Value::List(list) = &node.value else { return layer.wrong_type(&node, "a list of ports") };
    let mut ports = Vec::new();
    for (index, item) in list.iter().enumerate() {
        layer.under(&format!("[{index}]"), |layer| match &item.value {
            Value::Map(_) => ports.push(long(layer, item.clone())),
            Value::Text(_) | Value::Int(_) | Value::Float(_) => {
                let spec = item.scalar_text().unwrap_or_default();
                match short(&spec) {
                    Ok(parsed) => ports.extend(parsed.iter().map(|port| port.node(item))),
                    Err(reason) => layer.bad(&item.mark, format!("`{spec}` is not a port: {reason}"), REMEDY),
                }
            }
            _ => drop(layer.wrong_type(item, "a port")),
        });
    }
    node.with(Value::List(ports))
}

/// The long form with its defaults.
fn long(layer: &mut Layer<'_>, mut node: Node) -> Node {
    let published = node.get("published").and_then(|node| node.scalar_text());
    if let Some(published) = published.filter(|published| !published.is_empty())
        && let Err(reason) = range(&published)
    {
        let mark = node.get("published").map_or(&node.mark, |node| &node.mark).clone();
        layer.bad(&mark, format!("`{published}` is not a port: {reason}"), "write a number from 1 to 65535, or a range of them");
    }
    match node.get_int("target") {
        Some(1..=65535) => {}
        Some(_) | None => layer.bad(&node.mark, "`target:` is missing or not a port", "write the port inside the container as `target:`"),
    }
    let (mode, protocol) = (node.text_here("ingress"), node.text_here("tcp"));
    if let Some(map) = node.map_mut() {
        map.entry("mode".to_owned()).or_insert(mode);
        map.entry("protocol".to_owned()).or_insert(protocol);
    }
    node
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    address: String,
    published: String,
    target: u16,
    protocol: String,
}

impl Port {
    fn node(&self, at: &Node) -> Node {
        object(
            at,
            [
                ("mode", text("ingress")),
                ("host_ip", text(self.address.clone())),
                ("target", Value::Int(self.target.into())),
                ("published", text(self.published.clone())),
                ("protocol", text(self.protocol.clone())),
            ],
        )
    }
}

/// First and last port of `80` or `80-90`.
///
/// # Errors
///
/// What is wrong with it.
pub(in crate::config::compose) fn range(spec: &str) -> Result<(u16, u16), &'static str> {
    let number = |text: &str| text.parse::<u16>().map_err(|_| "it is not a number from 0 to 65535");
    let (first, last) = spec.split_once('-').unwrap_or((spec, spec));
    let (first, last) = (number(first)?, number(last)?);
    if first > last { Err("the range runs backwards") } else { Ok((first, last)) }
}

fn short(spec: &str) -> Result<Vec<Port>, &'static str> {
    let (ports, protocol) = spec.rsplit_once('/').unwrap_or((spec, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err("its protocol is none of tcp, udp, sctp");
    }
    let (rest, target) = match ports.rsplit_once(':') {
        Some((rest, target)) => (Some(rest), target),
        None => (None, ports),
    };
    let (address, published) = match rest.map(|rest| rest.rsplit_once(':').ok_or(rest)) {
        None => ("", ""),
        Some(Ok((address, published))) => (address, published),
        Some(Err(published)) => ("", published),
    };
    let address = match address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner,
        None if address.contains(':') => return Err("an IPv6 address needs brackets"),
        None => address,
    };
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err("its address is not an IP address");
    }
    let (first, last) = range(target)?;
    let port = |target: u16, published: String| Port { address: address.to_owned(), published, target, protocol: protocol.clone() };
    if published.is_empty() {
        return Ok((first..=last).map(|target| port(target, String::new())).collect());
    }
    let (host_first, host_last) = range(published)?;
    let (hosts, targets) = (host_last - host_first, last - first);
    if hosts != targets {
        // The engine takes the first free port of the range.
        return if targets == 0 { Ok(vec![port(first, published.to_owned())]) } else { Err("its ranges are of different length") };
    }
    Ok((first..=last).zip(host_first..=host_last).map(|(target, host)| port(target, host.to_string())).collect())
}
