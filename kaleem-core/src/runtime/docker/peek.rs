//! Containers seen from outside: through `/proc` where they run on this host, else as `docker top` shows them.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{DownloadFromContainerOptions, ListContainersOptions};
use futures_util::{StreamExt as _, stream};

use super::DockerRuntime;
use super::failure::Failure;
use super::instance::name_of;
use crate::names::ContainerName;
use crate::runtime::{ContainerFile, ContainerFiles, Inside, Peek, Process, RuntimeError, Socket, SocketState};

/// How many containers are asked about at the same time.
const QUESTIONS_AT_ONCE: usize = 8;
/// A file that is longer is no configuration.
const LONGEST_FILE: u64 = 512 * 1024;
/// Length of a container's id.
const ID: usize = 64;

const READ: &str = "read files of the container";

/// The container that a process belongs to: the last id in the paths of its control groups, since containers may stand in containers.
fn container_of(cgroup: &str) -> Option<&str> {
    let is_id = |part: &&str| part.len() == ID && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let pieces = |line| <str>::split(line, |letter: char| !letter.is_ascii_alphanumeric());
    cgroup.lines().find_map(|line: &str| pieces(line).rfind(is_id))
}

/// An address of the kernel's table: bytes of the address in the order of the processor, word by word, then the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at.checked_add(8)?)?, 16).ok();
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes())),
        32 => {
            let mut bytes = [0; 16];
            for (index, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(index.saturating_mul(8))?.to_ne_bytes());
            }
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The rows of `/proc/PID/net/tcp`.
fn sockets(table: &str) -> impl Iterator<Item = Socket> {
    table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote) = (socket_address(fields.next()?)?, socket_address(fields.next()?)?);
        // `include/net/tcp_states.h` of the kernel.
        let state = match fields.next()? {
            "01" => SocketState::Established,
            "0A" => SocketState::Listening,
            _ => SocketState::Other,
        };
        Some(Socket { local, remote, state })
    })
}

/// What `/proc` of this host shows of containers with these ids.
fn seen_on_this_host(proc: &Path, ids: &HashMap<String, ContainerName>) -> BTreeMap<ContainerName, Inside> {
    let mut found: BTreeMap<ContainerName, Inside> = BTreeMap::new();
    // Where there is no `/proc`, nothing is seen.
    for entry in std::fs::read_dir(proc).into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end at any moment.
        let Ok(cgroup) = std::fs::read_to_string(entry.path().join("cgroup")) else { continue };
        let Some(container) = container_of(&cgroup).and_then(|id| ids.get(id)) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<String> =
            line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        if !words.is_empty() {
            found.entry(container.clone()).or_default().processes.push(Process { pid, words });
        }
    }
    for inside in found.values_mut() {
        inside.processes.sort_by_key(|process| process.pid);
        let Some(first) = inside.processes.first() else { continue };
        let table = |name: &str| std::fs::read_to_string(proc.join(first.pid.to_string()).join("net").join(name)).ok();
        // A kernel without IPv6 has no second table.
        let (four, six) = (table("tcp"), table("tcp6").unwrap_or_default());
        inside.sockets = four.map(|four| sockets(&four).chain(sockets(&six)).collect());
    }
    found
}

/// Texts and links in an archive of the engine, by path inside the container. An archive that was cut gives what came whole.
fn texts(archive: &[u8], directory: &str) -> ContainerFiles {
    let mut files = ContainerFiles::new();
    let mut archive = tar::Archive::new(archive);
    let Ok(entries) = archive.entries() else { return files };
    for mut entry in entries.map_while(Result::ok) {
        let Ok(path) = entry.path().map(|path| path.to_string_lossy().into_owned()) else { continue };
        let path = format!("{}/{}", directory.trim_end_matches('/'), path.trim_end_matches('/'));
        let kind = entry.header().entry_type();
        if kind.is_symlink() {
            if let Ok(Some(to)) = entry.link_name() {
                files.insert(path, ContainerFile::Link(to.to_string_lossy().into_owned()));
            }
        } else if kind.is_file() && entry.size() <= LONGEST_FILE {
            let mut content = String::new();
            if std::io::Read::read_to_string(&mut entry, &mut content).is_ok() {
                files.insert(path, ContainerFile::Text(content));
            }
        }
    }
    files
}

/// Texts and links at or below `source` of this host, told as if they stood at `target`.
fn host_texts(source: &Path, target: &str, room: &mut usize, files: &mut ContainerFiles) {
    let Ok(found) = std::fs::symlink_metadata(source) else { return };
    if found.is_symlink() {
        if let Ok(to) = std::fs::read_link(source) {
            files.insert(target.to_owned(), ContainerFile::Link(to.to_string_lossy().into_owned()));
        }
    } else if found.is_dir() {
        for entry in std::fs::read_dir(source).into_iter().flatten().flatten() {
            if let Some(name) = entry.file_name().to_str() {
                host_texts(&entry.path(), &format!("{}/{name}", target.trim_end_matches('/')), room, files);
            }
        }
    } else if found.is_file() && found.len() <= LONGEST_FILE {
        let size = usize::try_from(found.len()).unwrap_or(usize::MAX);
        if let (Some(left), Ok(text)) = (room.checked_sub(size), std::fs::read_to_string(source)) {
            *room = left;
            files.insert(target.to_owned(), ContainerFile::Text(text));
        }
    }
}

/// Whether `path` is `directory` or below it; what comes behind it.
fn below<'a>(path: &'a str, directory: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(directory.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/'))
}

/// Where on this host the mounts of a container have `path`, or parts of what is below it.
fn mounted_at(container: &ContainerInspectResponse, path: &str) -> Vec<(PathBuf, String)> {
    let mounts = container.mounts.iter().flatten().filter_map(|mount| Some((mount.source.as_deref()?, mount.destination.as_deref()?)));
    let places = mounts.filter(|(source, _)| source.starts_with('/')).filter_map(|(source, target)| {
        if let Some(rest) = below(path, target) {
            return Some((Path::new(source).join(rest), path.to_owned()));
        }
        below(target, path).map(|_| (PathBuf::from(source), target.to_owned()))
    });
    places.collect()
}

impl DockerRuntime {
    /// Ids of the running containers with these names.
    async fn running_ids(&self, containers: &[ContainerName]) -> Result<HashMap<String, ContainerName>, RuntimeError> {
        let question = self.client.list_containers(None::<ListContainersOptions>);
        let running = self.ask("list containers", question).await.map_err(Failure::into_error)?;
        let ids = running.into_iter().filter_map(|container| {
            let names = container.names.unwrap_or_default();
            let name = names.iter().filter_map(|name| name_of(name)).find(|name| containers.contains(name))?;
            Some((container.id?, name))
        });
        Ok(ids.collect())
    }

    /// What `ps` on the engine's host prints of a container. `None` where it could not be asked, as for one that has ended.
    async fn top(&self, container: &ContainerName) -> Option<Inside> {
        let question = self.client.top_processes(container.as_str(), None::<bollard::query_parameters::TopOptions>);
        let table = self.ask("list the programs of the container", question).await.ok()?;
        let titles = table.titles.unwrap_or_default();
        let column = |names: &[&str]| titles.iter().position(|title| names.contains(&title.as_str()));
        let (pid, command) = (column(&["PID"])?, column(&["CMD", "COMMAND"])?);
        let process = |row: Vec<String>| {
            let words = row.get(command)?.split_whitespace().map(str::to_owned).collect();
            Some(Process { pid: row.get(pid)?.parse().ok()?, words })
        };
        let mut processes: Vec<Process> = table.processes.unwrap_or_default().into_iter().filter_map(process).collect();
        processes.sort_by_key(|process| process.pid);
        Some(Inside { processes, sockets: None })
    }
}

#[async_trait]
impl Peek for DockerRuntime {
    async fn inside(&self, containers: &[ContainerName]) -> Result<BTreeMap<ContainerName, Inside>, RuntimeError> {
        if containers.is_empty() {
            return Ok(BTreeMap::new());
        }
        let ids = self.running_ids(containers).await?;
        let looked_up = ids.clone();
        let looking = tokio::task::spawn_blocking(move || seen_on_this_host(Path::new("/proc"), &looked_up));
        let mut found = looking.await.unwrap_or_default();
        let unseen: Vec<ContainerName> = ids.into_values().filter(|name| !found.contains_key(name)).collect();
        let asked = stream::iter(unseen).map(|name| async move { self.top(&name).await.map(|inside| (name, inside)) });
        let asked: Vec<_> = asked.buffer_unordered(QUESTIONS_AT_ONCE).collect().await;
        found.extend(asked.into_iter().flatten());
        Ok(found)
    }

    async fn files(&self, container: &ContainerName, path: &str, most_bytes: usize) -> Result<ContainerFiles, RuntimeError> {
        let options = DownloadFromContainerOptions { path: path.to_owned() };
        let mut pieces = Box::pin(self.client.download_from_container(container.as_str(), Some(options)));
        let mut archive = Vec::new();
        while archive.len() < most_bytes {
            match tokio::time::timeout(self.answer_timeout, pieces.next()).await {
                Ok(None) => break,
                Ok(Some(Ok(piece))) => archive.extend_from_slice(&piece),
                Ok(Some(Err(error))) => {
                    let failure = Failure::new(READ, &self.endpoint, error);
                    return if failure.is_missing() { Ok(ContainerFiles::new()) } else { Err(failure.into_error()) };
                }
                Err(_) => return Err(Failure::silent(READ, &self.endpoint, self.answer_timeout).into_error()),
            }
        }
        // The archive of a directory begins with its own name.
        let parent = path.trim_end_matches('/').rsplit_once('/').map_or("", |(parent, _)| parent);
        Ok(texts(&archive, parent))
    }

    async fn mounted_files(&self, container: &ContainerName, path: &str, most_bytes: usize) -> Result<ContainerFiles, RuntimeError> {
        let Some(found) = self.look(container.as_str()).await? else { return Ok(ContainerFiles::new()) };
        // The paths are those of the engine's host: they mean something here only when its processes are seen here.
        let id = found.id.clone().unwrap_or_default();
        let pid = found.state.as_ref().and_then(|state| state.pid).unwrap_or_default();
        let places = mounted_at(&found, path);
        let reading = tokio::task::spawn_blocking(move || {
            let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let mut files = ContainerFiles::new();
            let mut room = most_bytes;
            if container_of(&cgroup) == Some(id.as_str()) {
                for (source, target) in places {
                    host_texts(&source, &target, &mut room, &mut files);
                }
            }
            files
        });
        Ok(reading.await.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_belongs_to_the_innermost_container_of_its_control_groups() {
        let (one, two) = ("a".repeat(64), "b".repeat(64));
        for (why, text, expected) in [
            ("the first version, by the engine itself", format!("9:name=systemd:/docker/{one}\n0::/docker/{one}\n"), Some(&one)),
            ("the second version, by systemd", format!("0::/system.slice/docker-{one}.scope\n"), Some(&one)),
            ("an engine in a container", format!("0::/docker/{one}/docker/{two}\n"), Some(&two)),
            ("a process of a container in a group of its own", format!("0::/docker/{one}/init\n"), Some(&one)),
            ("no container", "0::/user.slice/session-1.scope\n".to_owned(), None),
        ] {
            assert_eq!(container_of(&text), expected.map(String::as_str), "{why}");
        }
    }

    #[test]
    fn the_table_of_the_kernel_is_read_for_both_families() {
        let four = "  sl  local_address rem_address   st\n   0: 0200A8C0:9C40 0500A8C0:0BB8 01 00000000:00000000\n\
             1: 00000000:18EB 00000000:0000 0A 00000000:00000000\n   nonsense\n";
        let six = "  sl  local_address rem_address st\n\
             0: 0000000000000000FFFF00000200A8C0:9C41 0000000000000000FFFF00000500A8C0:0BB8 01 0:0\n";
        let found: Vec<Socket> = sockets(four).chain(sockets(six)).collect();
        let socket = |local: &str, remote: &str, state| Socket { local: local.parse().unwrap(), remote: remote.parse().unwrap(), state };
        let expected = [
            socket("192.168.0.2:40000", "192.168.0.5:3000", SocketState::Established),
            socket("0.0.0.0:6379", "0.0.0.0:0", SocketState::Listening),
            socket("192.168.0.2:40001", "192.168.0.5:3000", SocketState::Established),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_mount_that_holds_a_path_or_stands_below_it_is_read_on_the_host() {
        let mounts = serde_json::json!({ "Mounts": [
            { "Source": "/srv/nginx.conf", "Destination": "/etc/nginx/nginx.conf" },
            { "Source": "/srv/all", "Destination": "/opt" },
            { "Source": "/srv/data", "Destination": "/etc/nginx-data" },
            { "Source": "volume", "Destination": "/etc/nginx/x" },
        ]});
        let container: ContainerInspectResponse = serde_json::from_value(mounts).unwrap();
        let place = |source: &str, target: &str| (PathBuf::from(source), target.to_owned());
        assert_eq!(mounted_at(&container, "/etc/nginx"), [place("/srv/nginx.conf", "/etc/nginx/nginx.conf")]);
        assert_eq!(mounted_at(&container, "/opt/conf/a.conf"), [place("/srv/all/conf/a.conf", "/opt/conf/a.conf")]);
    }
}
