//! No crash loop by one poison event. Owns the file that says which event the
//! farm is handling: it survives the process, not the power, and costs two
//! small writes to the page cache per event.
//!
//! ```text
//!  enter ─▶ handled ─▶ leave                          nothing remains
//!     └───▶ panicked ─────────▶ next start: parked
//!     └───▶ process gone ─────▶ next start: suspected ─▶ again ─▶ parked
//! ```
//!
//! A process may be killed while it handles an innocent event, so only the
//! second death inside the same event parks it; a panic is proof at once.
//! A parked event is passed over until an operator approves an agent.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use farmbell_farm::event::Event;
use farmbell_protocol::bounded::Text;
use farmbell_protocol::codec::FrameSet;
use farmbell_protocol::id::{AttemptId, KeyHash};
use serde::{Deserialize, Serialize};

use super::turn::Peers;

/// Parked events that are remembered; the oldest gives way.
const PARKED_MAX: usize = 64;
/// Room for the note of the event in hand; the memory of earlier ones follows.
const NOTE_BYTES: usize = 512;

/// The file that outlives the process.
#[derive(Debug)]
pub struct Guard {
    file: File,
    path: PathBuf,
    memory: Memory,
    /// Parked by this start, for the farm to hear of.
    fresh: Vec<Note>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the note of events in hand, {path}, cannot be used: {source}")]
pub struct GuardError {
    path: String,
    source: std::io::Error,
}

/// One event that reached the farm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    phase: Phase,
    /// The hash of what came: the same report repeated is the same event.
    print: [u8; 32],
    /// Whose it was; bulk facts name no key.
    pub(super) key: Option<KeyHash>,
    pub(super) what: Text<256>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    Entered,
    Panicked,
}

/// What earlier starts learned.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    suspected: Option<[u8; 32]>,
    parked: Vec<[u8; 32]>,
}

impl Guard {
    /// Opens the file and draws the conclusions of the last process's end.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn open(path: &Path) -> Result<Self, GuardError> {
        let failed = |source| GuardError {
            path: path.display().to_string(),
            source,
        };
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        let bytes = std::fs::read(path).map_err(failed)?;
        let mut guard = Self {
            file,
            path: path.to_owned(),
            memory: bytes.get(NOTE_BYTES..).and_then(read).unwrap_or_default(),
            fresh: Vec::new(),
        };
        if let Some(note) = read(&bytes) {
            guard.conclude(note);
        }
        guard.remember()?;
        guard.leave()?;
        Ok(guard)
    }

    /// The events that this start parked.
    pub(super) fn take_fresh(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.fresh)
    }

    pub(super) fn is_parked(&self, note: &Note) -> bool {
        self.memory.parked.contains(&note.print)
    }

    /// Before the farm sees the event.
    pub(super) fn enter(&self, note: &Note) -> Result<(), GuardError> {
        self.write(0, &framed(note))
    }

    /// After the farm handled it.
    pub(super) fn leave(&self) -> Result<(), GuardError> {
        self.write(0, &[0; 4])
    }

    /// The farm panicked over it.
    pub(super) fn panicked(&self, note: Note) -> Result<(), GuardError> {
        let phase = Phase::Panicked;
        self.write(0, &framed(&Note { phase, ..note }))?;
        self.file.sync_data().map_err(|source| self.failed(source))
    }

    /// An operator takes an agent back in: everything parked gets another
    /// chance, with what is perhaps a mended program.
    pub(super) fn forgive(&mut self) -> Result<(), GuardError> {
        if self.memory.parked.is_empty() {
            return Ok(());
        }
        self.memory = Memory::default();
        self.remember()
    }

    fn conclude(&mut self, note: Note) {
        let guilty = match note.phase {
            Phase::Panicked => true,
            Phase::Entered => self.memory.suspected == Some(note.print),
        };
        if !guilty {
            tracing::warn!(what = %note.what, "the last process ended while it handled this event");
            self.memory.suspected = Some(note.print);
            return;
        }
        tracing::error!(
            what = %note.what,
            "this event brought the last process down; it is parked and its agent frozen: \
             look at the log, then `farmbell agent approve`"
        );
        self.memory.suspected = None;
        self.memory.parked.push(note.print);
        let over = self.memory.parked.len().saturating_sub(PARKED_MAX);
        self.memory.parked.drain(..over);
        self.fresh.push(note);
    }

    fn remember(&self) -> Result<(), GuardError> {
        self.write(NOTE_BYTES as u64, &framed(&self.memory))?;
        self.file.sync_data().map_err(|source| self.failed(source))
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), GuardError> {
        self.file
            .write_all_at(bytes, at)
            .map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> GuardError {
        GuardError {
            path: self.path.display().to_string(),
            source,
        }
    }
}

impl Note {
    /// The note of an event that came from an agent; `None` for the farm's own
    /// and for requests, which nobody repeats by himself.
    pub(super) fn of(event: &Event, peers: &Peers) -> Option<Self> {
        let of_attempt = |what: &str, attempt: &AttemptId| {
            let what = format!("{what} of attempt {attempt} ({:016x})", attempt.nonce);
            Self::new(None, what.as_bytes(), &what)
        };
        match event {
            Event::Report { conn, frame } => {
                let what = format!("report {:#06x}", frame.kind());
                Some(Self::new(peers.key(*conn), &frame.encode(), &what))
            }
            Event::Hello { key, .. } => Some(Self::new(Some(*key), b"hello", "hello")),
            Event::Join { key, .. } => Some(Self::new(Some(*key), b"join", "join")),
            Event::LogClosed { attempt, .. } => Some(of_attempt("log closed", attempt)),
            Event::Collected { attempt, .. } => Some(of_attempt("collected", attempt)),
            Event::Progress { attempt } => Some(of_attempt("progress", attempt)),
            Event::Request { .. }
            | Event::Closed { .. }
            | Event::Parked { .. }
            | Event::Aged(_)
            | Event::Found { .. }
            | Event::Wake => None,
        }
    }

    fn new(key: Option<KeyHash>, bytes: &[u8], what: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        if let Some(key) = key {
            hasher.update(&key.0);
        }
        hasher.update(bytes);
        Self {
            phase: Phase::Entered,
            print: *hasher.finalize().as_bytes(),
            key,
            what: Text::cut(what),
        }
    }
}

/// `length u32 LE | postcard`; a length of 0 is "nothing".
fn framed(value: &impl Serialize) -> Vec<u8> {
    let body = postcard::to_extend(value, vec![0; 4])
        .expect("plain structs of numbers, text and lists always encode");
    let length = u32::try_from(body.len() - 4).expect("a note is small");
    let mut framed = body;
    framed[..4].copy_from_slice(&length.to_le_bytes());
    framed
}

/// What the file says. Damage reads as nothing: this file may be lost.
fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if length == 0 {
        return None;
    }
    postcard::from_bytes(rest.get(..length)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(what: &str) -> Note {
        Note::new(Some(KeyHash([7; 32])), what.as_bytes(), what)
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in-hand");
        (dir, path)
    }

    #[test]
    fn a_panic_parks_its_event_at_the_next_start() {
        let (_dir, path) = file();
        let guard = Guard::open(&path).unwrap();
        guard.enter(&note("poison")).unwrap();
        guard.panicked(note("poison")).unwrap();
        let mut guard = Guard::open(&path).unwrap();
        assert!(guard.is_parked(&note("poison")));
        assert!(!guard.is_parked(&note("other")));
        assert_eq!(guard.take_fresh().len(), 1);
        let mut guard = Guard::open(&path).unwrap();
        assert!(guard.is_parked(&note("poison")), "remembered");
        assert!(guard.take_fresh().is_empty(), "told once");
        guard.forgive().unwrap();
        assert!(!Guard::open(&path).unwrap().is_parked(&note("poison")));
    }

    #[test]
    fn one_death_inside_an_event_is_suspicion_and_a_second_is_proof() {
        let (_dir, path) = file();
        Guard::open(&path).unwrap().enter(&note("suspect")).unwrap();
        let guard = Guard::open(&path).unwrap();
        assert!(!guard.is_parked(&note("suspect")));
        guard.enter(&note("suspect")).unwrap();
        assert!(Guard::open(&path).unwrap().is_parked(&note("suspect")));
    }

    #[test]
    fn an_event_that_was_handled_leaves_nothing() {
        let (_dir, path) = file();
        let guard = Guard::open(&path).unwrap();
        guard.enter(&note("fine")).unwrap();
        guard.leave().unwrap();
        guard.enter(&note("short")).unwrap();
        guard.leave().unwrap();
        let guard = Guard::open(&path).unwrap();
        assert!(guard.memory.suspected.is_none() && guard.memory.parked.is_empty());
    }

    #[test]
    fn a_damaged_file_is_an_empty_one() {
        let (_dir, path) = file();
        std::fs::write(&path, [0xff; 700]).unwrap();
        assert!(!Guard::open(&path).unwrap().is_parked(&note("any")));
    }
}
