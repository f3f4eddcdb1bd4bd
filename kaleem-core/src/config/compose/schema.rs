//! Every key of the top level: what it takes, and whether it is carried out. Services are in [`super::schema_service`].

use crate::config::compose::forms;
use crate::config::compose::schema_service::SERVICE;
use crate::config::compose::shape::{Bare, Key, Note, Shape};

/// A key that is carried out, and left out of the model where its value says nothing.
pub(super) const fn key(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, kept: false, note: Note::Done }
}

/// A key whose `false`, `0` or empty value says something.
pub(super) const fn kept(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, kept: true, note: Note::Done }
}

/// A key that has no effect here.
pub(super) const fn ignored(name: &'static str, shape: Shape, reason: &'static str) -> Key {
    Key { name, shape, kept: false, note: Note::Ignored(reason) }
}

/// The same, and its empty value stays in the model.
pub(super) const fn ignored_kept(name: &'static str, shape: Shape, reason: &'static str) -> Key {
    Key { name, shape, kept: true, note: Note::Ignored(reason) }
}

/// A key that is not carried out.
pub(super) const fn refused(name: &'static str, shape: Shape, reason: &'static str, remedy: &'static str) -> Key {
    Key { name, shape, kept: true, note: Note::Refused(reason, remedy) }
}

pub(super) const LABELS: Shape = Shape::Pairs(Bare::Empty);

pub(super) static PROJECT: Shape = Shape::Object(&[
    key("name", Shape::Text),
    key("services", Shape::Map(&SERVICE)),
    key("networks", Shape::Map(&NETWORK)),
    key("volumes", Shape::Map(&VOLUME)),
    key("secrets", Shape::Map(&FILE_OBJECT)),
    key("configs", Shape::Map(&FILE_OBJECT)),
]);

static NETWORK: Shape = Shape::Short(
    forms::external,
    &Shape::Object(&[
        key("name", Shape::Text),
        key("driver", Shape::Text),
        key("driver_opts", Shape::Pairs(Bare::Empty)),
        kept("ipam", Shape::Object(&IPAM)),
        key("external", Shape::Bool),
        key("internal", Shape::Bool),
        key("attachable", Shape::Bool),
        key("labels", LABELS),
        key("enable_ipv6", Shape::Bool),
        refused("enable_ipv4", Shape::Bool, "older engines cannot switch IPv4 off", "remove it"),
    ]),
);

static IPAM: [Key; 3] = [
    key("driver", Shape::Text),
    key(
        "config",
        Shape::List(&Shape::Object(&[
            key("subnet", Shape::Text),
            key("gateway", Shape::Text),
            key("ip_range", Shape::Text),
            key("aux_addresses", Shape::Pairs(Bare::Empty)),
        ])),
    ),
    key("options", Shape::Pairs(Bare::Empty)),
];

static VOLUME: Shape = Shape::Short(
    forms::external,
    &Shape::Object(&[
        key("name", Shape::Text),
        key("driver", Shape::Text),
        key("driver_opts", Shape::Short(forms::volume_options, &Shape::Pairs(Bare::Empty))),
        key("external", Shape::Bool),
        key("labels", LABELS),
    ]),
);

static FILE_OBJECT: Shape = Shape::Short(
    forms::external,
    &Shape::Object(&[
        key("name", Shape::Text),
        key("file", Shape::Path),
        key("environment", Shape::Text),
        key("content", Shape::Text),
        key("external", Shape::Bool),
        ignored("labels", LABELS, "only a swarm keeps labels of secrets and configs"),
        refused("driver", Shape::Text, "secrets of a driver exist only in a swarm", "use `file:` or `environment:`"),
        refused("driver_opts", Shape::Pairs(Bare::Empty), "secrets of a driver exist only in a swarm", "use `file:` or `environment:`"),
        refused("template_driver", Shape::Text, "templates exist only in a swarm", "use `content:` with variables"),
    ]),
);
