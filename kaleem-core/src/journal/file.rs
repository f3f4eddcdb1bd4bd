//! Journals as files: JSON lines, each bound to the one before it by a checksum, each on disk before it counts.
//!
//! A line that a crash tore at the end of the file is cut off, since nothing was believed of it. Every other damage is
//! named with its line and stops everything: a journal is never repaired by guessing.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::durable::{self, AppendFile, DurableError};
use crate::journal::progress::{IllegalEvent, Progress};
use crate::journal::{Event, JOURNAL_FORMAT};
use crate::plan::{PLAN_FORMAT, Plan};
use crate::remedy::Remedy;

/// Hexadecimal digits of a line's checksum: 64 bits tell damage apart from accident; they are no defence against forgery.
const SUM_DIGITS: usize = 16;

/// One line of a journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// When it was written, for people.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// Why a journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file system refused. What the journal says up to now is on disk; nothing was done since.
    #[error("could not keep the journal")]
    File {
        /// Why.
        #[source]
        source: DurableError,
    },
    /// A line is damaged.
    #[error("the journal {} is damaged in line {line}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// It was written by a newer kaleem.
    #[error("the journal {} has format {found}, and this kaleem reads up to {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format.
        found: u32,
        /// The newest that is read.
        known: u32,
    },
    /// Its lines are whole, and do not make sense in that order.
    #[error("the journal {} cannot be followed at line {line}", path.display())]
    Illegal {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        #[source]
        source: IllegalEvent,
    },
    /// An event could not be written down.
    #[error("bug: an event has no text form")]
    Encode {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Remedy for JournalError {
    fn remedy(&self) -> String {
        match self {
            Self::File { source } => source.remedy(),
            Self::Damaged { path, .. } | Self::Illegal { path, .. } => {
                let path = path.display();
                format!("run `kaleem doctor --repair`: it tells what is known, sets {path} aside, and what runs goes on")
            }
            Self::Newer { .. } => "use the newer kaleem that wrote it".to_owned(),
            Self::Encode { .. } => "report it: https://github.com/kaleem-release/kaleem/issues".to_owned(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    sum: &'a str,
    /// As it is written: two texts can mean one moment.
    at: &'a str,
    #[serde(borrow)]
    event: &'a RawValue,
}

/// The first line of a newer format may differ in everything but this.
#[derive(Deserialize)]
struct FormatOnly {
    event: FormatOnlyEvent,
}

#[derive(Deserialize)]
struct FormatOnlyEvent {
    format: Option<u32>,
    plan: Option<FormatOnlyPlan>,
}

#[derive(Deserialize)]
struct FormatOnlyPlan {
    format: Option<u32>,
}

fn checksum(previous: &str, at: &str, event: &str) -> String {
    let mut hash = Sha256::new();
    for part in [previous, at, event] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut text = hex::encode(hash.finalize());
    text.truncate(SUM_DIGITS);
    text
}

fn encode(previous: &str, at: Timestamp, event: &Event) -> Result<(String, String), JournalError> {
    let event = serde_json::to_string(event).map_err(|source| JournalError::Encode { source })?;
    let at = at.to_string();
    let sum = checksum(previous, &at, &event);
    Ok((format!("{{\"sum\":\"{sum}\",\"at\":\"{at}\",\"event\":{event}}}"), sum))
}

/// A journal that is open for writing. Whoever holds it holds the project's lease.
#[derive(Debug)]
pub struct Journal {
    file: AppendFile,
    path: PathBuf,
    sum: String,
    progress: Progress,
}

impl Journal {
    /// Begins a journal with its plan. The file is there in whole, or not at all.
    ///
    /// # Errors
    ///
    /// [`JournalError::File`] also when there is one of that name already; nothing was touched.
    pub fn begin(path: &Path, plan: &Plan, at: Timestamp) -> Result<Self, JournalError> {
        let event = Event::Planned { format: JOURNAL_FORMAT, plan: Box::new(plan.clone()) };
        let illegal = |source| JournalError::Illegal { path: path.to_owned(), line: 1, source };
        let progress = Progress::begin(&event).map_err(illegal)?;
        let (line, sum) = encode("", at, &event)?;
        let failed = |source| JournalError::File { source };
        durable::create_new(path, format!("{line}\n").as_bytes()).map_err(failed)?;
        let file = AppendFile::open(path).map_err(failed)?;
        Ok(Self { file, path: path.to_owned(), sum, progress })
    }

    /// Opens a journal to go on with it. A line that was torn at the end is cut off.
    ///
    /// # Errors
    ///
    /// [`JournalError`]; the file is as it was.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let failed = |source| JournalError::File { source };
        let mut file = AppendFile::open(path).map_err(failed)?;
        let text = durable::read(path).map_err(failed)?;
        let read = parse(path, &text)?;
        if read.whole_bytes < file.length_bytes() {
            file.truncate_to(read.whole_bytes).map_err(failed)?;
        }
        Ok(Self { file, path: path.to_owned(), sum: read.sum, progress: read.progress })
    }

    /// How far the plan got.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes an event down. When it returns, the event is on disk, and only then is it part of [`Journal::progress`].
    ///
    /// # Errors
    ///
    /// [`JournalError::Illegal`] for an event that cannot follow (nothing was written), [`JournalError::File`] when the disk
    /// refused: then nothing more may be done to the host.
    pub fn append(&mut self, event: &Event, at: Timestamp) -> Result<(), JournalError> {
        self.take(event, at, AppendFile::append_line)
    }

    /// Writes an event down without waiting for the disk: the next [`Journal::append`] does that for both. It outlives this process, but
    /// perhaps not a loss of power. So it is for what may be lost, since the same is done again then and nothing on the host hangs on it.
    ///
    /// # Errors
    ///
    /// As [`Journal::append`].
    pub fn note(&mut self, event: &Event, at: Timestamp) -> Result<(), JournalError> {
        self.take(event, at, AppendFile::add_line)
    }

    fn take(
        &mut self,
        event: &Event,
        at: Timestamp,
        write: fn(&mut AppendFile, &[u8]) -> Result<(), DurableError>,
    ) -> Result<(), JournalError> {
        let mut progress = self.progress.clone();
        let illegal = |source| JournalError::Illegal { path: self.path.clone(), line: 0, source };
        progress.apply(event).map_err(illegal)?;
        let (line, sum) = encode(&self.sum, at, event)?;
        write(&mut self.file, line.as_bytes()).map_err(|source| JournalError::File { source })?;
        self.sum = sum;
        self.progress = progress;
        Ok(())
    }
}

/// Reads a journal without changing it. A line that was torn at the end is passed over.
///
/// # Errors
///
/// [`JournalError`]
pub fn read(path: &Path) -> Result<(Vec<Record>, Progress), JournalError> {
    let text = durable::read(path).map_err(|source| JournalError::File { source })?;
    let read = parse(path, &text)?;
    Ok((read.records, read.progress))
}

/// What a journal holds up to its first damage.
#[derive(Debug)]
pub struct Examined {
    /// How far the plan got by the whole lines; `None` where not even the first is whole.
    pub progress: Option<Progress>,
    /// Bytes of the whole lines.
    pub whole_bytes: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// What is wrong with the line behind them; `None` where nothing is, or where it is merely torn.
    pub damage: Option<JournalError>,
}

/// Looks at a journal as far as it can be read, without changing it.
///
/// # Errors
///
/// [`JournalError::File`]
pub fn examine(path: &Path) -> Result<Examined, JournalError> {
    let text = durable::read(path).map_err(|source| JournalError::File { source })?;
    let mut read = Lines::default();
    let damage = read.take(path, &text).err();
    Ok(Examined { progress: read.progress, whole_bytes: read.whole_bytes, bytes: text.len() as u64, damage })
}

struct Parsed {
    records: Vec<Record>,
    progress: Progress,
    sum: String,
    whole_bytes: u64,
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Parsed, JournalError> {
    let mut lines = Lines::default();
    lines.take(path, bytes)?;
    let Lines { records, progress, sum, whole_bytes } = lines;
    let nothing = || JournalError::Damaged { path: path.to_owned(), line: 1, reason: "it holds no whole line".to_owned() };
    Ok(Parsed { records, progress: progress.ok_or_else(nothing)?, sum, whole_bytes })
}

/// The whole lines so far.
#[derive(Default)]
struct Lines {
    records: Vec<Record>,
    progress: Option<Progress>,
    sum: String,
    whole_bytes: u64,
}

impl Lines {
    /// Takes line after line, up to the first that is damaged.
    fn take(&mut self, path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
        let damaged = |line: usize, reason: String| JournalError::Damaged { path: path.to_owned(), line, reason };
        for (index, chunk) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let number = index + 1;
            // Only a whole line ends in a line break: the rest is what a crash tore.
            let Some(chunk) = chunk.strip_suffix(b"\n") else { break };
            let text = std::str::from_utf8(chunk).map_err(|error| damaged(number, error.to_string()))?;
            if number == 1 {
                refuse_newer(path, text)?;
            }
            let line: Line<'_> = serde_json::from_str(text).map_err(|error| damaged(number, error.to_string()))?;
            if line.sum != checksum(&self.sum, line.at, line.event.get()) {
                return Err(damaged(number, "its checksum is wrong".to_owned()));
            }
            let event: Event = serde_json::from_str(line.event.get()).map_err(|error| damaged(number, error.to_string()))?;
            let at = line.at.parse().map_err(|_| damaged(number, "its time is none".to_owned()))?;
            let illegal = |source| JournalError::Illegal { path: path.to_owned(), line: number, source };
            match &mut self.progress {
                Some(progress) => progress.apply(&event).map_err(illegal)?,
                None => self.progress = Some(Progress::begin(&event).map_err(illegal)?),
            }
            self.records.push(Record { at, event });
            line.sum.clone_into(&mut self.sum);
            self.whole_bytes += chunk.len() as u64 + 1;
        }
        Ok(())
    }
}

fn refuse_newer(path: &Path, text: &str) -> Result<(), JournalError> {
    let Ok(FormatOnly { event }) = serde_json::from_str(text) else { return Ok(()) };
    let newer = |found, known| JournalError::Newer { path: path.to_owned(), found, known };
    if let Some(found) = event.format.filter(|format| *format > JOURNAL_FORMAT) {
        return Err(newer(found, JOURNAL_FORMAT));
    }
    if let Some(found) = event.plan.and_then(|plan| plan.format).filter(|format| *format > PLAN_FORMAT) {
        return Err(newer(found, PLAN_FORMAT));
    }
    Ok(())
}
