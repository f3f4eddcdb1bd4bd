//! `kaleem backup create` against what people do without it, of the same data, in turn: `redis-cli --rdb | zstd`, `restic
//! backup`, and a loop of pymongo. kaleem reads everything back before it counts, which the others do not. Its peak memory is told, also
//! for a stream that is longer than all of them.

use std::path::Path;
use std::time::Duration;

use super::median;
use crate::demo::kaleem_as_shipped;
use crate::fail::TaskError;
use crate::place::{self, Place};
use crate::programs::{Measured, Program, Started, wait_until};
use crate::say;
use crate::setup::{self, Consent, Need};

/// Time that a server has to start.
const START: Duration = Duration::from_secs(60);

/// What is to be measured.
pub(crate) struct Size {
    /// MB of Redis values and of files each.
    pub megabytes: usize,
    /// Documents of about 1 kB in MongoDB.
    pub documents: usize,
    /// GB of a stream that cannot be packed, of which kaleem makes a set while its memory is looked at.
    pub gigabytes: usize,
    /// How often each has its turn.
    pub rounds: usize,
}

/// A contest: an artifact of the kaleem project, and a shell line that does the same.
struct Contest {
    artifact: &'static str,
    peer: &'static str,
    line: String,
}

/// Fills values whose hexadecimal digits are random, so that they pack to about a half.
const FILL: &str = "for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do local v = {} for j = 1, 25 do v[j] = redis.sha1hex(i .. ':' .. j) end \
                    redis.call('SET', 'key:' .. i, table.concat(v)) end";

const MONGO_FILL: &str = "\
import sys, hashlib, pymongo
c = pymongo.MongoClient('mongodb://127.0.0.1:' + sys.argv[1], directConnection=True).shop.orders
n = int(sys.argv[2])
for start in range(0, n, 2000):
    c.insert_many([{'_id': i, 'text': ''.join(hashlib.sha1(b'%d:%d' % (i, j)).hexdigest() for j in range(25))} for i in range(start, min(n, start + 2000))])
";

const MONGO_DUMP: &str = "\
import sys, pymongo
from bson.raw_bson import RawBSONDocument
from bson.codec_options import CodecOptions
d = pymongo.MongoClient('mongodb://127.0.0.1:' + sys.argv[1], directConnection=True).get_database('shop', codec_options=CodecOptions(document_class=RawBSONDocument))
for name in d.list_collection_names():
    for document in d[name].find():
        sys.stdout.buffer.write(document.raw)
";

/// Measures.
pub(crate) fn run(place: &Place, consent: Consent, size: &Size, program: Option<std::path::PathBuf>) -> Result<(), TaskError> {
    let parts = setup::run(place, consent, Need::Tests)?;
    let program = kaleem_as_shipped(place, program)?;
    let scratch =
        tempfile::tempdir_in(&place.tools).map_err(|source| TaskError::File { operation: "create", path: place.tools.clone(), source })?;
    let at = |name: &str| scratch.path().join(name);
    for name in ["redis", "files", "vault"] {
        place::create_directory(&at(name))?;
    }
    let python = parts.mongo_server.with_file_name("python");
    let (redis_port, mongo_port) = (place::free_port()?.to_string(), place::free_port()?.to_string());
    say::step("filling Redis, a directory and a server that speaks as MongoDB");
    let _redis = redis(place, &at("redis"), &redis_port, size.megabytes)?;
    let _mongo = mongo(place, &parts.mongo_server, scratch.path(), &mongo_port)?;
    Program::new(place, &python).args(["-c", MONGO_FILL, &mongo_port, &size.documents.to_string()]).run()?;
    files(&at("files"), size.megabytes)?;
    place::write(&at("compose.yaml"), "name: kaleem-bench-backup\nservices:\n  app: {image: 'kaleem.invalid/none:1'}\n")?;
    place::write(
        &at("kaleem.toml"),
        "[backup]\nunencrypted = true\n[backup.vaults.disk]\npath = \"vault\"\n[backup.sources.redis]\nkind = \"redis\"\nurl-env = \"REDIS\"\n\
         [backup.sources.files]\nkind = \"files\"\npath = \"files\"\n[backup.sources.mongo]\nkind = \"mongodb\"\nurl-env = \"MONGO\"\ndatabases = [\"shop\"]\n\
             [backup.sources.stream]\nkind = \"command\"\nvariables = [\"BYTES\"]\n\
             command = [\"sh\", \"-c\", \"openssl enc -aes-128-ctr -nosalt -pass pass:x -in /dev/zero 2>/dev/null | head -c \\\"$BYTES\\\"\"]\n",
    )?;
    let contests = [
        Contest {
            artifact: "redis",
            peer: "redis-cli --rdb | zstd",
            line: format!("redis-cli -p {redis_port} --rdb - 2>/dev/null | zstd -q > out && sync out"),
        },
        Contest {
            artifact: "files",
            peer: "restic backup",
            line: "export RESTIC_PASSWORD=x RESTIC_CACHE_DIR=cache; restic -q -r repository init > /dev/null && restic -q -r repository backup files".to_owned(),
        },
        Contest {
            artifact: "mongo",
            peer: "a pymongo loop | zstd",
            line: format!("\"$PYTHON\" -c \"$DUMP\" {mongo_port} | zstd -q > out && sync out"),
        },
    ];
    let create = |artifact: &str| {
        let program = Program::new(place, &program).args(["backup", "create", "--only", artifact, "-q"]).directory(scratch.path());
        let program = program.env("KALEEM_STATE_DIR", at("state")).env("REDIS", format!("redis://127.0.0.1:{redis_port}"));
        let program = program.env("MONGO", format!("mongodb://127.0.0.1:{mongo_port}/?directConnection=true"));
        program.env("BYTES", format!("{}", size.gigabytes * 1_000_000_000)).quiet().measure()
    };
    let empty = || {
        std::fs::remove_dir_all(at("vault/sets")).ok();
    };
    let heading = ["", "kaleem, median s", "peer", "peer, median s", "ratio", "kaleem's peak MiB"].map(str::to_owned).to_vec();
    let mut rows = vec![heading];
    for contest in &contests {
        let (mut ours, mut theirs, mut peak) = (Vec::new(), Vec::new(), 0);
        for _ in 0..size.rounds {
            let measured = create(contest.artifact)?;
            well("kaleem backup create", &measured)?;
            peak = peak.max(measured.peak_bytes);
            ours.push(measured.took.as_secs_f64());
            let line = format!("set -euo pipefail; rm -rf out repository cache; {}", contest.line);
            let shell = Program::new(place, "bash").args(["-c", &line]).directory(scratch.path());
            let measured = shell.env("PYTHON", &python).env("DUMP", MONGO_DUMP).quiet().measure()?;
            well(contest.peer, &measured)?;
            theirs.push(measured.took.as_secs_f64());
            // The next turn begins with an empty vault.
            empty();
        }
        let (our, their) = (median(&ours), median(&theirs));
        rows.push(vec![
            contest.artifact.to_owned(),
            format!("{our:.1}"),
            contest.peer.to_owned(),
            format!("{their:.1}"),
            format!("{:.2}", their / our),
            format!("{}", peak / 1024 / 1024),
        ]);
    }
    let measured = create("stream")?;
    well("kaleem backup create", &measured)?;
    let took = measured.took.as_secs_f64();
    let peak = format!("{}", measured.peak_bytes / 1024 / 1024);
    rows.push(vec![
        format!("stream of {} GB", size.gigabytes),
        format!("{took:.1}"),
        "none".to_owned(),
        String::new(),
        String::new(),
        peak,
    ]);
    say::table(&rows);
    say::line(&format!("{} MB of values, as much of files, {} documents, {} rounds", size.megabytes, size.documents, size.rounds));
    Ok(())
}

fn well(what: &str, measured: &Measured) -> Result<(), TaskError> {
    if measured.status.success() {
        return Ok(());
    }
    Err(TaskError::Unexpected { what: format!("{what} failed ({})", measured.status) })
}

fn redis(place: &Place, directory: &Path, port: &str, megabytes: usize) -> Result<Started, TaskError> {
    let started = Program::new(place, "redis-server")
        .args(["--bind", "127.0.0.1", "--port", port, "--save", "", "--dir"])
        .arg(directory)
        .start(&directory.join("log"))?;
    let ask = |words: &[&str]| Program::new(place, "redis-cli").args(["-p", port]).args(words);
    if !wait_until(START, || ask(&["ping"]).succeeds()) {
        return Err(TaskError::Unexpected { what: "Redis does not start".to_owned() });
    }
    for from in (0..megabytes * 1000).step_by(10_000) {
        ask(&["eval", FILL, "0", &from.to_string(), &(from + 9_999).to_string()]).quiet().run()?;
    }
    Ok(started)
}

fn mongo(place: &Place, server: &Path, directory: &Path, port: &str) -> Result<Started, TaskError> {
    let storage = directory.join("mongo");
    place::create_directory(&storage)?;
    let started = Program::new(place, server)
        .args(["--host", "127.0.0.1", "--port", port, "--storage-path"])
        .arg(&storage)
        .start(&directory.join("mongo.log"))?;
    let port: u16 = port.parse().unwrap_or_default();
    if !wait_until(START, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()) {
        return Err(TaskError::Unexpected { what: "the server that speaks as MongoDB does not start".to_owned() });
    }
    Ok(started)
}

/// Files of 4 MB whose text packs to about a half.
fn files(directory: &Path, megabytes: usize) -> Result<(), TaskError> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..megabytes / 4 {
        let mut text = String::with_capacity(4_000_000);
        while text.len() < 4_000_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push_str(&format!("{state:016x}"));
        }
        place::write(&directory.join(format!("file-{number}")), &text)?;
    }
    Ok(())
}
