//! Strict fakes of the seams, and the contract suites which fakes and adapters both pass.
//!
//! For tests alone: nothing that ships may switch the feature `testing` on.

pub mod backup_contract;
pub mod backup_fake;
pub mod clock_fake;
pub mod mongo_wire;
pub mod ports;
pub mod probe_contract;
pub mod probes_fake;
pub mod program;
pub mod rabbitmq;
pub mod registry_contract;
pub mod registry_fake;
pub mod runtime_contract;
pub mod runtime_fake;
pub mod sets_contract;
pub mod sets_fake;
pub mod traffic_contract;
pub mod traffic_fake;

pub use backup_fake::{FakeVault, VaultFault};
pub use clock_fake::FakeClock;
pub use ports::{claim_port, free_port};
pub use probes_fake::{FakeNeeds, FakeProbes};
pub use registry_fake::{FakeOutage, FakeRegistry, FakeRegistryCall};
pub use runtime_fake::{
    Behaviour, CHECK, ExecReply, FakeCall, FakeContainer, FakeImage, FakeOperation, FakeRuntime, FakeSnapshot, FakeView,
};
pub use sets_fake::{FakeBackupSets, SetsPlace};
