//! What a project was read with beside its files: variables that the files name, and services that no active profile names.
//!
//! A release remembers it, so that the next deploy can tell that something is missing. Values stay in memory: only their keyed hashes are kept.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::ServiceName;
use crate::secret::Secret;

/// What a project was read with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// Variables that the compose files name, by name.
    pub variables: BTreeMap<String, Variable>,
    /// Services that the files describe and no active profile names.
    pub disabled: BTreeSet<ServiceName>,
}

/// A variable that compose files name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Variable {
    /// Its value; `None` where it is not set.
    pub value: Option<Secret<String>>,
    /// The services that name it, as the file calls them. Empty where something else does.
    pub services: BTreeSet<String>,
    /// Those of them whose image it is a part of. An empty name stands for what several may share, such as `x-api.image`.
    pub images: BTreeSet<String>,
}

impl Inputs {
    /// Notes that `variable` is named at a path such as `services.api.image`.
    pub(super) fn note(&mut self, variable: &str, path: &str, value: Option<String>) {
        let known = self.variables.entry(variable.to_owned()).or_default();
        if known.value.is_none() {
            known.value = value.map(Secret::new);
        }
        let service = path.strip_prefix("services.").and_then(|rest| rest.split(['.', '[']).next());
        known.services.extend(service.map(str::to_owned));
        if path.rsplit('.').next() == Some("image") {
            known.images.insert(service.unwrap_or_default().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_belongs_to_the_services_that_name_it() {
        let mut inputs = Inputs::default();
        inputs.note("TAG", "services.api.image", Some("v1".to_owned()));
        inputs.note("TAG", "services.worker.environment[0]", Some("v1".to_owned()));
        inputs.note("SUBNET", "networks.default.ipam", None);
        let services = |name: &str| inputs.variables.get(name).map(|variable| variable.services.iter().cloned().collect::<Vec<_>>());
        assert_eq!(services("TAG"), Some(vec!["api".to_owned(), "worker".to_owned()]));
        assert_eq!(services("SUBNET"), Some(Vec::new()));
        let images = |name: &str| inputs.variables.get(name).map(|variable| variable.images.iter().cloned().collect::<Vec<_>>());
        assert_eq!(images("TAG"), Some(vec!["api".to_owned()]));
        assert_eq!(images("SUBNET"), Some(Vec::new()));
        assert!(!format!("{inputs:?}").contains("v1"), "values are not shown");
    }
}
