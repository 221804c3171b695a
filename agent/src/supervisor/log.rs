//! The stored log of one attempt: masked, cut by the policy, flushed to the
//! disk about once a second. Owns the file and its length; never who reads it.
//!
//! Cut policy: the first three quarters of the limit are stored as they come;
//! of what follows, the last quarter (at most [`TAIL_MAX`]) is kept and stored
//! at the end, behind a cut that says how much is missing.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::attempt::{Cut, LogExtent, emptied};
use crate::mask::Masker;

/// Tail bytes that are kept in memory once a log is over its limit.
const TAIL_MAX: u64 = 256 << 10;
/// How long written bytes may be without the disk's promise.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// How many: whoever flushes another file meanwhile waits for these as well.
const FLUSH_BYTES: u64 = 2 << 20;

#[derive(Debug)]
pub(super) struct Log {
    file: File,
    masker: Masker,
    masked: Vec<u8>,
    length: u64,
    head_max: u64,
    tail_max: usize,
    tail: VecDeque<u8>,
    dropped: u64,
    /// When the oldest byte was written that the disk has not promised.
    dirty_since: Option<Instant>,
    dirty_bytes: u64,
}

impl Log {
    /// A limit of 0 means none.
    pub(super) fn create(path: &Path, bytes_max: u64, masker: Masker) -> io::Result<Self> {
        let tail_max = (bytes_max / 4).min(TAIL_MAX);
        let head_max = if bytes_max == 0 {
            u64::MAX
        } else {
            bytes_max - tail_max
        };
        Ok(Self {
            file: emptied(path)?,
            masker,
            masked: Vec::new(),
            length: 0,
            head_max,
            tail_max: usize::try_from(tail_max).unwrap_or(usize::MAX),
            tail: VecDeque::new(),
            dropped: 0,
            dirty_since: None,
            dirty_bytes: 0,
        })
    }

    /// Bytes that a reader may have now.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn feed(&mut self, bytes: &[u8], now: Instant) -> io::Result<()> {
        let mut masked = std::mem::take(&mut self.masked);
        masked.clear();
        self.masker.feed(bytes, &mut masked);
        let stored = self.store(&masked, now);
        self.masked = masked;
        stored
    }

    fn store(&mut self, bytes: &[u8], now: Instant) -> io::Result<()> {
        let room = usize::try_from(self.head_max - self.length.min(self.head_max))
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let (head, rest) = bytes.split_at(room);
        if !head.is_empty() {
            self.append(head, now)?;
        }
        if !rest.is_empty() {
            self.keep_tail(rest);
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8], now: Instant) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        self.dirty_since.get_or_insert(now);
        self.dirty_bytes += bytes.len() as u64;
        if self.dirty_bytes >= FLUSH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn keep_tail(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(self.tail_max)..];
        let passed_over = bytes.len() - kept.len();
        let overflow = (self.tail.len() + kept.len()).saturating_sub(self.tail_max);
        self.tail.drain(..overflow);
        self.tail.extend(kept);
        self.dropped += (passed_over + overflow) as u64;
    }

    /// When [`flush`](Self::flush) is due.
    pub(super) fn flush_at(&self) -> Option<Instant> {
        self.dirty_since.map(|since| since + FLUSH_EVERY)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.dirty_since.take().is_some() {
            self.file.sync_data()?;
            self.dirty_bytes = 0;
        }
        Ok(())
    }

    /// Stores what was held back, and makes all of it durable.
    pub(super) fn finish(&mut self, now: Instant) -> io::Result<LogExtent> {
        let mut rest = Vec::new();
        self.masker.finish(&mut rest);
        self.store(&rest, now)?;
        let cut = (self.dropped > 0).then_some(Cut {
            offset: self.length,
            dropped: self.dropped,
        });
        let tail: Vec<u8> = std::mem::take(&mut self.tail).into();
        if !tail.is_empty() {
            self.append(&tail, now)?;
        }
        self.flush()?;
        Ok(LogExtent {
            length: self.length,
            cut,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(limit: u64, written: &[&[u8]]) -> (Vec<u8>, LogExtent) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::create(&path, limit, Masker::new([])).unwrap();
        for bytes in written {
            log.feed(bytes, Instant::now()).unwrap();
        }
        let extent = log.finish(Instant::now()).unwrap();
        (std::fs::read(path).unwrap(), extent)
    }

    #[test]
    fn a_log_within_its_limit_is_stored_whole() {
        let (bytes, extent) = stored(100, &[&b"0123456789"[..]; 9]);
        assert_eq!(bytes, b"0123456789".repeat(9));
        assert_eq!((extent.length, extent.cut), (90, None));
    }

    #[test]
    fn of_a_log_over_its_limit_head_and_tail_are_stored_and_the_gap_is_told() {
        let all: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for piece in [1, 7, 100, 1000] {
            let pieces: Vec<&[u8]> = all.chunks(piece).collect();
            let (bytes, extent) = stored(100, &pieces);
            assert_eq!(bytes[..75], all[..75], "pieces of {piece}");
            assert_eq!(bytes[75..], all[975..], "pieces of {piece}");
            let cut = Cut {
                offset: 75,
                dropped: 900,
            };
            assert_eq!((extent.length, extent.cut), (100, Some(cut)));
        }
    }
}
