//! The event stream, followed as it is written. Owns the waiting of stories:
//! whoever waits, waits for an entry with a deadline, never for time.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::PATIENCE;

/// One line of the farm's history, as the command line prints it.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    pub seq: u64,
    pub kind: String,
    #[serde(default)]
    pub job: Option<String>,
    #[serde(default)]
    pub attempt: Option<serde_json::Value>,
    #[serde(default)]
    pub builder: Option<serde_json::Value>,
    /// Who did it; empty where the farm did.
    #[serde(default)]
    pub by: String,
    #[serde(default)]
    pub why: String,
    /// When, by the coordinator's wall clock.
    #[serde(default)]
    pub at: String,
    /// When this process read it.
    #[serde(skip, default = "Instant::now")]
    pub seen: Instant,
}

/// A follower of the stream from where it stood when it was made.
#[derive(Debug)]
pub struct Events {
    follower: Child,
    lines: mpsc::Receiver<Entry>,
    seen: Vec<Entry>,
}

impl Events {
    /// # Panics
    /// If the command cannot be started.
    #[must_use]
    pub fn follow(mut command: Command) -> Self {
        let mut follower = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the follower of events can be started");
        let output = follower.stdout.take().expect("its output is piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                // A killed coordinator ends the stream, at worst within a line.
                let Ok(line) = line else { return };
                let entry = serde_json::from_str::<Entry>(&line)
                    .unwrap_or_else(|error| panic!("not an entry ({error}): {line}"));
                if sender.send(entry).is_err() {
                    return;
                }
            }
        });
        Self {
            follower,
            lines,
            seen: Vec::new(),
        }
    }

    /// Every entry that was looked at.
    #[must_use]
    pub fn seen(&self) -> &[Entry] {
        &self.seen
    }

    /// The number of the last entry that was looked at, 0 before the first.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.seen.last().map_or(0, |entry| entry.seq)
    }

    /// The next entry of this kind; those before it are passed over.
    pub fn next_of(&mut self, kind: &str) -> Entry {
        self.next_that(kind, |entry| entry.kind == kind)
    }

    /// The next entry of this kind about this job.
    pub fn next_of_job(&mut self, kind: &str, job: &str) -> Entry {
        self.next_that(kind, |entry| {
            entry.kind == kind && entry.job.as_deref() == Some(job)
        })
    }

    /// The next entry that fits.
    ///
    /// # Panics
    /// If none comes in time; it shows what came.
    pub fn next_that(&mut self, what: &str, fits: impl Fn(&Entry) -> bool) -> Entry {
        self.next_within(PATIENCE, fits).unwrap_or_else(|| {
            let kinds: Vec<_> = self
                .seen
                .iter()
                .map(|entry| {
                    format!(
                        "{} {} {}",
                        entry.kind,
                        entry.job.as_deref().unwrap_or("-"),
                        entry.why
                    )
                })
                .collect();
            panic!("no {what} came; there were:\n{}", kinds.join("\n"))
        })
    }

    /// The next entry that fits, if one comes within `patience`.
    pub fn next_within(
        &mut self,
        patience: Duration,
        fits: impl Fn(&Entry) -> bool,
    ) -> Option<Entry> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let entry = self.lines.recv_timeout(left).ok()?;
            self.seen.push(entry.clone());
            if fits(&entry) {
                return Some(entry);
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // It may have ended by itself with the coordinator.
        drop(self.follower.kill());
        drop(self.follower.wait());
    }
}
