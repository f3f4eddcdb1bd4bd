//! What puts a key and functions back, whole as `DUMP` would have written them.

use kaleem_core::backup::SourceError;

use super::wire::Connection;
use crate::format::Crc64;
use crate::format::rdb::RdbKey;

/// The longest value that is put back through a command.
pub(super) const LONGEST_VALUE: usize = 64 * 1024 * 1024;

/// The command that loads one key, under any name.
pub(super) struct Loading {
    payload: Vec<u8>,
    expires: String,
    is_expiring: bool,
}

impl Loading {
    pub(super) fn new(key: &mut RdbKey, version: u16) -> Result<Self, SourceError> {
        let Some(mut payload) = key.value.take() else {
            let what = String::from_utf8_lossy(&key.key).into_owned();
            let reason = format!("its value is longer than {} MiB; put dump.rdb in its place by hand", LONGEST_VALUE / 1024 / 1024);
            return Err(SourceError::Unsupported { what, reason });
        };
        seal(&mut payload, version);
        Ok(Self { payload, expires: key.expires_ms.unwrap_or(0).to_string(), is_expiring: key.expires_ms.is_some() })
    }

    pub(super) fn parts<'a>(&'a self, name: &'a [u8]) -> Vec<&'a [u8]> {
        let mut parts: Vec<&[u8]> = vec![b"RESTORE", name, self.expires.as_bytes(), &self.payload];
        if self.is_expiring {
            parts.push(b"ABSTTL");
        }
        parts
    }
}

/// What `RESTORE` wants behind the bytes: version and checksum.
fn seal(payload: &mut Vec<u8>, version: u16) {
    payload.extend(version.to_le_bytes());
    let mut crc = Crc64::jones();
    crc.add(payload);
    payload.extend(crc.value().to_le_bytes());
}

/// All functions of a file, as `FUNCTION RESTORE` takes them at once.
#[derive(Default)]
pub(super) struct Functions {
    pub(super) payload: Vec<u8>,
}

impl Functions {
    pub(super) fn add(&mut self, code: &[u8]) {
        self.payload.extend([0xf5, 0x81]);
        self.payload.extend((code.len() as u64).to_be_bytes());
        self.payload.extend_from_slice(code);
    }

    pub(super) fn seal(&mut self, version: u16) {
        if !self.payload.is_empty() {
            seal(&mut self.payload, version);
        }
    }
    /// Gives them to a server in place of those that it has: it takes all, or leaves its own.
    pub(super) async fn replace(&self, connection: &mut Connection, has_some: bool) -> Result<(), SourceError> {
        if !self.payload.is_empty() {
            connection.command("loading functions", &[b"FUNCTION", b"RESTORE", &self.payload, b"FLUSH"]).await?;
        } else if has_some {
            connection.command("removing functions", &[b"FUNCTION", b"FLUSH"]).await?;
        }
        Ok(())
    }
}
