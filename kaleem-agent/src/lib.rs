//! The long-running parts of kaleem. The gateway is a data plane of its own: it knows nothing of Docker, plans or compose files.

pub mod gateway;
