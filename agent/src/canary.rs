//! The canary: a file among a builder's attempts that shows whether its reset
//! script leaves them alone. Only where that is proved may outputs travel
//! during a reset. Owns the file and its verdict.
//!
//! It is durable before the script begins; there afterwards, it has survived
//! this very script, and says so until the script changes. Where there is no
//! script nothing can be lost: the agent's own cleaning keeps to workspaces.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use farmbell_protocol::builder::Event;
use serde::{Deserialize, Serialize};

use crate::attempt::{read_checked, write_checked};
use crate::config::Script;

#[derive(Debug)]
pub(crate) struct Canary {
    path: PathBuf,
    script: [u8; 32],
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// The hash of the script's words and bytes.
    script: [u8; 32],
    survived: bool,
}

impl Canary {
    /// Of the builder whose attempts lie in `directory`.
    ///
    /// # Errors
    /// If the script cannot be read.
    pub(crate) fn of(directory: &Path, script: &Script) -> io::Result<Self> {
        let mut hash = blake3::Hasher::new();
        for word in &script.argv {
            hash.update(word.as_bytes()).update(&[0]);
        }
        let program = script.argv.first().map_or("", String::as_str);
        hash.update(&fs::read(program)?);
        Ok(Self {
            path: directory.join("canary"),
            script: *hash.finalize().as_bytes(),
        })
    }

    /// Before the script runs.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn set(&self) -> io::Result<()> {
        match self.mark()? {
            Some(_) => Ok(()),
            None => self.keep(false),
        }
    }

    /// Whether this script is known to leave it alone.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn is_proved(&self) -> io::Result<bool> {
        Ok(self.mark()?.is_some_and(|mark| mark.survived))
    }

    /// After the script has run: what the brain has to know.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn look(&self) -> io::Result<Event> {
        let mark = self.mark()?;
        if mark.as_ref().is_some_and(|mark| !mark.survived) {
            self.keep(true)?;
        }
        let proved = mark.is_some();
        Ok(Event::SpoolSurvivesReset { proved })
    }

    /// Of this script, not of one that it replaced.
    fn mark(&self) -> io::Result<Option<Mark>> {
        let mark: Option<Mark> = read_checked(&self.path)?;
        Ok(mark.filter(|mark| mark.script == self.script))
    }

    fn keep(&self, survived: bool) -> io::Result<()> {
        let script = self.script;
        write_checked(&self.path, &Mark { script, survived })?.sync_all()?;
        File::open(self.path.parent().unwrap_or(&self.path))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn script(path: &Path, body: &str) -> Script {
        fs::write(path, body).unwrap();
        Script {
            argv: vec![path.display().to_string(), "b1".to_owned()],
            timeout: Duration::from_secs(1),
        }
    }

    fn proved(event: &Event) -> bool {
        matches!(event, Event::SpoolSurvivesReset { proved: true })
    }

    #[test]
    fn a_reset_that_leaves_it_alone_is_believed_until_the_script_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reset");
        let canary = Canary::of(dir.path(), &script(&path, "one")).unwrap();
        assert!(!canary.is_proved().unwrap());
        canary.set().unwrap();
        assert!(!canary.is_proved().unwrap(), "no reset has run yet");
        assert!(proved(&canary.look().unwrap()));
        assert!(canary.is_proved().unwrap());
        canary.set().unwrap();
        assert!(canary.is_proved().unwrap(), "set again, it stays proved");
        let other = Canary::of(dir.path(), &script(&path, "two")).unwrap();
        assert!(!other.is_proved().unwrap());
    }

    #[test]
    fn a_reset_that_takes_it_along_is_believed_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let canary = Canary::of(dir.path(), &script(&dir.path().join("reset"), "")).unwrap();
        canary.set().unwrap();
        assert!(proved(&canary.look().unwrap()));
        fs::remove_file(dir.path().join("canary")).unwrap();
        assert!(!proved(&canary.look().unwrap()));
        assert!(!canary.is_proved().unwrap());
    }
}
