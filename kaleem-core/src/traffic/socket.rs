//! Speaks to gateways over their Unix sockets: one connection for each call, so that nothing has to be kept in order.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::protocol::{Answer, Call, Command, LONGEST_LINE, Outcome, PROGRAM_PREFIX, PROTOCOL, SOCKET, program_digest};
use super::{DrainPolicy, DrainReport, GatewayStats, Routing, Target, Traffic, TrafficError};
use crate::health::{Finding, Question};
use crate::names::{ContainerName, GatewayName};

/// Longest path that fits into a socket address.
const LONGEST_SOCKET_PATH: usize = 100;
/// Time for a call that does not wait for others.
const PLAIN_CALL: Duration = Duration::from_secs(10);
/// Time for a new program to take over.
const UPGRADE_CALL: Duration = Duration::from_secs(60);

/// Gateways whose directories lie below one directory, each under the gateway's name.
#[derive(Clone, Debug)]
pub struct SocketTraffic {
    root: PathBuf,
}

impl SocketTraffic {
    /// Gateways below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory of a gateway, which its container sees as its own.
    pub fn directory(&self, gateway: &GatewayName) -> PathBuf {
        self.root.join(gateway.as_str())
    }

    async fn connect(&self, gateway: &GatewayName) -> io::Result<UnixStream> {
        let path = self.directory(gateway).join(SOCKET);
        if path.as_os_str().len() <= LONGEST_SOCKET_PATH {
            return UnixStream::connect(&path).await;
        }
        // A long path does not fit into an address; one through an open directory always does.
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let directory = rustix::fs::open(self.directory(gateway), flags, rustix::fs::Mode::empty())?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
        UnixStream::connect(format!("/proc/self/fd/{number}/{SOCKET}")).await
    }

    async fn call(
        &self,
        gateway: &GatewayName,
        operation: &'static str,
        command: Command,
        limit: Duration,
    ) -> Result<Outcome, TrafficError> {
        let exchange = async {
            let stream = self.connect(gateway).await.map_err(|source| TrafficError::Unreachable { gateway: gateway.clone(), source })?;
            let line =
                exchange(stream, command).await.map_err(|source| TrafficError::Broken { gateway: gateway.clone(), operation, source })?;
            self.read(gateway, operation, &line)
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(TrafficError::TimedOut { gateway: gateway.clone(), operation, limit }),
        }
    }

    fn read(&self, gateway: &GatewayName, operation: &'static str, line: &str) -> Result<Outcome, TrafficError> {
        let garbled = |reason: String| TrafficError::Garbled { gateway: gateway.clone(), reason };
        let answer: Answer = serde_json::from_str(line).map_err(|error| garbled(error.to_string()))?;
        match answer.outcome {
            Outcome::Refused(source) => Err(TrafficError::Refused { gateway: gateway.clone(), operation, source }),
            other => Ok(other),
        }
    }

    fn other(gateway: &GatewayName, operation: &str) -> TrafficError {
        TrafficError::Garbled { gateway: gateway.clone(), reason: format!("the answer belongs to another question than to {operation}") }
    }

    /// Programs that were brought to a gateway before.
    async fn programs(&self, gateway: &GatewayName) -> Vec<String> {
        let mut found = Vec::new();
        let Ok(mut entries) = tokio::fs::read_dir(self.directory(gateway)).await else { return found };
        while let Ok(Some(entry)) = entries.next_entry().await {
            found.extend(entry.file_name().into_string().ok().filter(|name| name.starts_with(PROGRAM_PREFIX)));
        }
        found
    }

    /// The counters of a gateway in the text form of Prometheus.
    ///
    /// # Errors
    ///
    /// [`TrafficError::Unreachable`], [`TrafficError::Broken`], [`TrafficError::TimedOut`], [`TrafficError::Garbled`]
    pub async fn metrics(&self, gateway: &GatewayName) -> Result<String, TrafficError> {
        let operation = "tell what it counted";
        let exchange = async {
            let mut stream =
                self.connect(gateway).await.map_err(|source| TrafficError::Unreachable { gateway: gateway.clone(), source })?;
            let mut text = String::new();
            let asked = async {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n").await?;
                stream.read_to_string(&mut text).await
            };
            asked.await.map_err(|source| TrafficError::Broken { gateway: gateway.clone(), operation, source })?;
            match text.split_once("\r\n\r\n") {
                Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
                _ => Err(TrafficError::Garbled { gateway: gateway.clone(), reason: "it does not answer with metrics".to_owned() }),
            }
        };
        match tokio::time::timeout(PLAIN_CALL, exchange).await {
            Ok(result) => result,
            Err(_) => Err(TrafficError::TimedOut { gateway: gateway.clone(), operation, limit: PLAIN_CALL }),
        }
    }

    /// Puts the binary beside the socket, whole or not at all, and answers with its name there.
    async fn bring(&self, gateway: &GatewayName, binary: &Path) -> io::Result<String> {
        let directory = self.directory(gateway);
        let mut random = [0_u8; 6];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let temporary = directory.join(format!(".{PROGRAM_PREFIX}{}.part", hex::encode(random)));
        let copied: io::Result<String> = async {
            tokio::fs::copy(binary, &temporary).await?;
            // Named by what was copied, should the original change meanwhile.
            let name = format!("{PROGRAM_PREFIX}{}", program_digest(&tokio::fs::read(&temporary).await?));
            tokio::fs::set_permissions(&temporary, std::os::unix::fs::PermissionsExt::from_mode(0o755)).await?;
            tokio::fs::File::open(&temporary).await?.sync_all().await?;
            tokio::fs::rename(&temporary, directory.join(&name)).await?;
            tokio::fs::File::open(&directory).await?.sync_all().await?;
            Ok(name)
        }
        .await;
        if copied.is_err() {
            // What is left of the copy is of no use; that it cannot be removed changes nothing about the error.
            tokio::fs::remove_file(&temporary).await.ok();
        }
        copied
    }
}

async fn exchange(stream: UnixStream, command: Command) -> io::Result<String> {
    let mut stream = BufReader::new(stream);
    let mut text = serde_json::to_vec(&Call { protocol: PROTOCOL, command })?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    stream.flush().await?;
    let mut line = String::new();
    let longest = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX);
    (&mut stream).take(longest).read_line(&mut line).await?;
    if !line.ends_with('\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer is not complete"));
    }
    Ok(line)
}

#[async_trait]
impl Traffic for SocketTraffic {
    async fn steer(&self, gateway: &GatewayName, routing: &Routing) -> Result<(), TrafficError> {
        let operation = "carry out a routing";
        match self.call(gateway, operation, Command::Steer(routing.clone()), PLAIN_CALL).await? {
            Outcome::Steered => Ok(()),
            _ => Err(Self::other(gateway, operation)),
        }
    }

    async fn probe(&self, gateway: &GatewayName, target: &Target, question: &Question, timeout: Duration) -> Result<Finding, TrafficError> {
        let operation = "probe an instance";
        let command = Command::Probe { target: target.clone(), question: question.clone(), timeout };
        match self.call(gateway, operation, command, timeout.saturating_add(Duration::from_millis(200))).await {
            Ok(Outcome::Found(finding)) => Ok(finding),
            Ok(_) => Err(Self::other(gateway, operation)),
            Err(error) => Err(error),
        }
    }

    async fn drain(&self, gateway: &GatewayName, instance: &ContainerName, policy: &DrainPolicy) -> Result<DrainReport, TrafficError> {
        let operation = "drain an instance";
        let command = Command::Drain { instance: instance.clone(), policy: *policy };
        // The gateway keeps the deadline; this bound is for a gateway that hangs.
        let limit = policy.requests.max(policy.streams).saturating_add(PLAIN_CALL);
        match self.call(gateway, operation, command, limit).await? {
            Outcome::Drained(report) => Ok(report),
            _ => Err(Self::other(gateway, operation)),
        }
    }

    async fn stats(&self, gateway: &GatewayName) -> Result<GatewayStats, TrafficError> {
        let operation = "tell what it counted";
        match self.call(gateway, operation, Command::Stats, PLAIN_CALL).await? {
            Outcome::Stats(stats) => Ok(*stats),
            _ => Err(Self::other(gateway, operation)),
        }
    }

    async fn upgrade(&self, gateway: &GatewayName, binary: &Path) -> Result<String, TrafficError> {
        let operation = "hand over to another program";
        // Asked first, so that nothing is copied for a gateway that does not run.
        self.connect(gateway).await.map_err(|source| TrafficError::Unreachable { gateway: gateway.clone(), source })?;
        let programs = self.programs(gateway).await;
        let file = self.bring(gateway, binary).await.map_err(|source| TrafficError::NotBrought {
            gateway: gateway.clone(),
            binary: binary.display().to_string(),
            source,
        })?;
        match self.call(gateway, operation, Command::Upgrade { file: file.clone() }, UPGRADE_CALL).await {
            Ok(Outcome::Upgraded { version }) => {
                // Processes that leave keep theirs open; nobody starts it again. What stays behind does no harm.
                for old in programs.iter().filter(|old| **old != file) {
                    tokio::fs::remove_file(self.directory(gateway).join(old)).await.ok();
                }
                Ok(version)
            }
            Ok(_) => Err(Self::other(gateway, operation)),
            Err(error) => {
                if matches!(error, TrafficError::Refused { .. }) && !programs.contains(&file) {
                    // The binary is not used; a leftover does no harm.
                    tokio::fs::remove_file(self.directory(gateway).join(file)).await.ok();
                }
                Err(error)
            }
        }
    }
}
