//! The agent's state directory: one agent at a time, which life of it this is,
//! and which spool. Owns the lock and the counter; what lies in the spool is
//! the spool's.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use farmbell_protocol::bounded::Name;
use farmbell_protocol::id::{BootId, SpoolId};
use serde::{Deserialize, Serialize};

use crate::attempt::{make_directory, read_checked, write_checked};
use crate::facts;

/// A state directory that this process holds.
#[derive(Debug)]
pub(crate) struct State {
    root: PathBuf,
    pub(crate) life: Life,
    _lock: File,
}

/// This life of the agent, as it is kept for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Life {
    /// Counts the starts on this directory.
    pub(crate) incarnation: u64,
    pub(crate) spool: SpoolId,
    pub(crate) boot: BootId,
}

impl State {
    /// Takes the directory, and counts this start.
    pub(crate) fn open(root: &Path) -> anyhow::Result<Self> {
        for directory in [root.to_owned(), root.join("spool"), root.join("work")] {
            make_directory(&directory)
                .with_context(|| format!("{} cannot be made", directory.display()))?;
        }
        let lock = File::create(root.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another agent runs on {}; stop it, or give this one a state directory of its own",
                root.display()
            ),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let path = root.join("life");
        let before: Option<Life> =
            read_checked(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let boot = facts::boot_id().context("the kernel does not say which boot this is")?;
        let life = match before {
            Some(before) => Life {
                incarnation: before.incarnation + 1,
                boot,
                ..before
            },
            None => first_life(root, boot)?,
        };
        keep(&path, &life).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self {
            root: root.to_owned(),
            life,
            _lock: lock,
        })
    }

    pub(crate) fn spool(&self, builder: &Name) -> PathBuf {
        self.root.join("spool").join(format!("{builder}.spool"))
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }
}

/// Without a life before, whatever lies in the spool is nobody's.
fn first_life(root: &Path, boot: BootId) -> anyhow::Result<Life> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).context("the system has no randomness")?;
    tracing::info!(state = %root.display(), "a new spool");
    Ok(Life {
        incarnation: 1,
        spool: SpoolId(random),
        boot,
    })
}

fn keep(path: &Path, life: &Life) -> io::Result<()> {
    let new = path.with_extension("new");
    write_checked(&new, life)?.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}
