//! Control groups that nobody is in: what a supervisor leaves that was killed.
//! Owns telling them from groups that somebody is about to use.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{BUILD, Place, SUPERVISOR, pids_in, remove_empty};
use crate::attempt::attempt_of;

impl Place {
    /// Removes groups that nobody is in: what a supervisor leaves that was
    /// killed, and whose attempt nobody knows any more. One younger than
    /// `age_min` may be one that a supervisor is just entering.
    pub fn sweep(&self, age_min: Duration) {
        let trees = self.v2.iter().chain(self.v1.iter().map(|(_, ours)| ours));
        for ours in trees {
            match sweep_tree(ours, age_min) {
                Ok(0) => {}
                Ok(swept) => {
                    tracing::info!(path = %ours.display(), swept, "empty control groups removed");
                }
                Err(error) => {
                    tracing::warn!(path = %ours.display(), %error, "control groups are not swept");
                }
            }
        }
    }
}

fn sweep_tree(ours: &Path, age_min: Duration) -> io::Result<usize> {
    let mut swept = 0;
    for entry in fs::read_dir(ours)? {
        let entry = entry?;
        let ours = entry.file_name().to_str().and_then(attempt_of).is_some();
        if ours && is_abandoned(&entry.path(), age_min) {
            remove_empty(&entry.path());
            swept += 1;
        }
    }
    Ok(swept)
}

/// A supervisor that lives is in its leaf. What cannot be read now, because
/// somebody else removes it, is not abandoned.
fn is_abandoned(root: &Path, age_min: Duration) -> bool {
    let made = fs::metadata(root).and_then(|meta| meta.modified());
    let old = made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age >= age_min));
    let is_empty = |leaf: &str| pids_in(&root.join(leaf)).is_ok_and(|pids| pids.is_empty());
    old && is_empty(SUPERVISOR) && is_empty(BUILD)
}
