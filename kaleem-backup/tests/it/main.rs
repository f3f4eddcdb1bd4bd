//! Integration tests.

#[cfg(test)]
mod archive;
#[cfg(test)]
mod backups;
#[cfg(test)]
mod command;
#[cfg(test)]
mod covered;
#[cfg(test)]
mod drill;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod files;
#[cfg(test)]
mod holes;
#[cfg(test)]
mod http_server;
#[cfg(test)]
mod mongo;
#[cfg(test)]
mod mongo_member;
#[cfg(test)]
mod mongo_parts;
#[cfg(test)]
mod qdrant;
#[cfg(test)]
mod qdrant_stand_in;
#[cfg(test)]
mod rabbitmq;
#[cfg(test)]
mod redis;
#[cfg(test)]
mod redis_cluster;
#[cfg(test)]
mod restic;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod s3;
#[cfg(test)]
mod s3_stand_in;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod sets;
#[cfg(test)]
mod setup;
#[cfg(test)]
mod support;
#[cfg(test)]
mod vaults;
