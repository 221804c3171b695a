//! The directory of one attempt: what lies where in it, what its supervisor is
//! asked for, and how its run ended. Shared by the agent, which makes and
//! reads it, and the supervisor, which works in it.
//!
//! ```text
//! (itself)     held (flock) by the supervisor for all its life
//! request      what to run, written before the supervisor starts
//! socket       where it answers
//! log          what the build wrote, masked and cut
//! exit         there, empty, from just before the recipe's exec; then how the
//!              run ended, durable before anyone is told
//! workspace/ inputs/ outputs/ parameters/ secrets/   the recipe's places
//! reason       one line the recipe may leave
//! sealed/ manifest   outputs out of the build's reach
//! ```
//!
//! Invariant: lock held means it runs; lock free and no readable exit record
//! means that it never ran (no `began`) or that its supervisor died.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use farmbell_protocol::builder::EndReport;
use farmbell_protocol::id::{AttemptId, JobId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Paths within one attempt's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptDir {
    root: PathBuf,
}

/// What a supervisor is to run, and within which limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub attempt: AttemptId,
    pub argv: Vec<String>,
    /// The whole environment of the recipe.
    pub environment: Vec<(String, String)>,
    /// Whether a program that cannot be started is the job's own fault.
    pub argv_is_the_jobs: bool,
    pub bounds: Bounds,
    /// Files whose contents are masked in the log.
    pub secrets: Vec<PathBuf>,
    /// The directory below which control groups of attempts are made.
    pub group: Option<crate::groups::Place>,
}

/// Limits as the supervisor enforces them. 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    pub total_ms: u64,
    pub silence_ms: u64,
    pub grace_ms: u64,
    pub log_bytes: u64,
    pub memory_bytes: u64,
    pub processes: u32,
    pub cpu_millis: u32,
}

/// How the run ended and what its log is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    pub report: EndReport,
    pub log: LogExtent,
}

/// The stored log: its length, and what the cut policy left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogExtent {
    pub length: u64,
    pub cut: Option<Cut>,
}

/// At `offset` of the stored log, `dropped` bytes of output are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    pub offset: u64,
    pub dropped: u64,
}

/// What a look at an attempt's directory finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A supervisor holds the lock.
    Running,
    Ended(Box<ExitRecord>),
    /// The recipe was or may have been started, and nobody saw its end.
    Died,
    NeverRan,
}

impl AttemptDir {
    /// The directory of `attempt` below a builder's directory.
    #[must_use]
    pub fn of(builder: &Path, attempt: AttemptId) -> Self {
        Self::at(builder.join(directory_name(attempt)))
    }

    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    #[must_use]
    pub fn request(&self) -> PathBuf {
        self.root.join("request")
    }

    /// The directory itself: who locks it is its supervisor.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(&self) -> io::Result<File> {
        File::open(&self.root)
    }

    /// Says that the recipe is about to run.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn begin(&self) -> io::Result<()> {
        File::create(self.exit()).map(drop)
    }

    /// Whether the recipe ran or may have run.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn has_begun(&self) -> io::Result<bool> {
        self.exit().try_exists()
    }

    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    #[must_use]
    pub fn exit(&self) -> PathBuf {
        self.root.join("exit")
    }

    #[must_use]
    pub fn supervisor_log(&self) -> PathBuf {
        self.root.join("supervisor.log")
    }

    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        self.root.join("workspace")
    }

    #[must_use]
    pub fn inputs(&self) -> PathBuf {
        self.root.join("inputs")
    }

    #[must_use]
    pub fn outputs(&self) -> PathBuf {
        self.root.join("outputs")
    }

    #[must_use]
    pub fn parameters(&self) -> PathBuf {
        self.root.join("parameters")
    }

    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }

    #[must_use]
    pub fn archives(&self) -> PathBuf {
        self.root.join("archives")
    }

    #[must_use]
    pub fn recipe(&self) -> PathBuf {
        self.root.join("recipe")
    }

    #[must_use]
    pub fn reason(&self) -> PathBuf {
        self.root.join("reason")
    }

    #[must_use]
    pub fn sealed(&self) -> PathBuf {
        self.root.join("sealed")
    }

    #[must_use]
    pub fn manifest(&self) -> PathBuf {
        self.root.join("manifest")
    }

    /// Looks whether it runs, or how it ended.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn look(&self) -> io::Result<Found> {
        match self.open() {
            Ok(lock) => match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Found::Running),
                Err(TryLockError::Error(error)) => return Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(record) = read_checked(&self.exit())? {
            return Ok(Found::Ended(Box::new(record)));
        }
        Ok(if self.has_begun()? {
            Found::Died
        } else {
            Found::NeverRan
        })
    }

    /// Makes durable the names of all that lies here, the exit record's among
    /// them, and of the directory itself: done while the recipe runs, so that
    /// its end waits for the record's bytes alone.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn keep_names(&self) -> io::Result<()> {
        self.open()?.sync_all()?;
        match self.root.parent() {
            Some(builder) => File::open(builder)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Writes the exit record; durable when this returns, behind
    /// [`keep_names`](Self::keep_names).
    ///
    /// # Errors
    /// If the disk fails.
    pub fn keep_exit(&self, record: &ExitRecord) -> io::Result<()> {
        write_checked(&self.exit(), record)?.sync_data()
    }

    /// # Errors
    /// If the record is not there or damaged.
    pub fn read_exit(&self) -> io::Result<Option<ExitRecord>> {
        read_checked(&self.exit())
    }

    /// # Errors
    /// If the disk fails.
    pub fn keep_request(&self, request: &Request) -> io::Result<()> {
        write_checked(&self.request(), request).map(drop)
    }

    /// # Errors
    /// If the request is not there or damaged.
    pub fn read_request(&self) -> io::Result<Request> {
        read_checked(&self.request())?.ok_or_else(|| {
            let path = self.request();
            io::Error::other(format!("{} is missing or damaged", path.display()))
        })
    }
}

/// `job.generation.number-nonce`, the nonce in hexadecimal.
#[must_use]
pub fn directory_name(attempt: AttemptId) -> String {
    format!("{attempt}-{:016x}", attempt.nonce)
}

/// The attempt that a directory belongs to, if its name is one of ours.
#[must_use]
pub fn attempt_of(name: &str) -> Option<AttemptId> {
    let (front, nonce) = name.split_once('-')?;
    let mut parts = front.split('.');
    let attempt = AttemptId {
        job: parts.next()?.parse::<JobId>().ok()?,
        generation: parts.next()?.parse().ok()?,
        number: parts.next()?.parse().ok()?,
        nonce: u64::from_str_radix(nonce, 16).ok()?,
    };
    parts.next().is_none().then_some(attempt)
}

const CHECK_BYTES: usize = 8;

/// Writes `checksum | value`, so that half a file is never taken for a whole.
pub(crate) fn write_checked<T: Serialize>(path: &Path, value: &T) -> io::Result<File> {
    let body = postcard::to_stdvec(value).map_err(io::Error::other)?;
    let mut bytes = blake3::hash(&body).as_bytes()[..CHECK_BYTES].to_vec();
    bytes.extend_from_slice(&body);
    let mut file = emptied(path)?;
    file.write_all(&bytes)?;
    Ok(file)
}

/// Opens an empty file. One that is empty already is left as it is: ext4 takes
/// a truncation, even of nothing, for the first half of a replacement, and has
/// the second wait for the disk when it is closed.
pub(crate) fn emptied(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    if file.metadata()?.len() > 0 {
        file.set_len(0)?;
    }
    Ok(file)
}

/// `None` where there is no whole value.
pub(crate) fn read_checked<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some((check, body)) = bytes.split_at_checked(CHECK_BYTES) else {
        return Ok(None);
    };
    if check != &blake3::hash(body).as_bytes()[..CHECK_BYTES] {
        return Ok(None);
    }
    postcard::from_bytes(body)
        .map(Some)
        .map_err(io::Error::other)
}

/// Makes a directory and its name durable, if it is not there.
///
/// # Errors
/// If the disk fails.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// The attempts that have a directory below a builder's directory.
///
/// # Errors
/// If the directory cannot be listed.
pub fn attempts_in(builder: &Path) -> io::Result<Vec<AttemptId>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(builder)? {
        if let Some(attempt) = entry?.file_name().to_str().and_then(attempt_of) {
            found.push(attempt);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_name_is_read_back() {
        let attempt = AttemptId {
            job: JobId(77),
            generation: 2,
            number: 3,
            nonce: 0xfeed,
        };
        assert_eq!(attempt_of(&directory_name(attempt)), Some(attempt));
        assert_eq!(attempt_of("lost+found"), None);
    }

    #[test]
    fn half_a_record_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exit");
        drop(write_checked(&path, &"whole".to_owned()).unwrap());
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(read_checked::<String>(&path).unwrap(), None, "{end} bytes");
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(read_checked::<String>(&path).unwrap().unwrap(), "whole");
    }
}
