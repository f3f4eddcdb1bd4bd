//! The Docker engine over its API.
