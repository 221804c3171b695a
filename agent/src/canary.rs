//! The canary: a file among a builder's attempts that shows whether its reset
//! script leaves them alone. Only where that is proved may outputs travel
//! during a reset. Owns the file and its verdict.
//!
//! Written anew and durable before each reset; there afterwards with the same
//! mark, it has survived this very script, and says so until the script
//! changes or takes it along. A disk that is set back brings an older mark. An
//! agent inside what is reset remembers no mark, so it never claims anything.
//! Where there is no script nothing can be lost: the agent's own cleaning
//! keeps to workspaces.

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
    /// Of the last reset alone.
    random: u64,
    survived: bool,
}

/// A canary that a reset has to leave alone.
#[derive(Debug)]
pub(crate) struct Set {
    canary: Canary,
    mark: Mark,
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
    /// If the disk fails, or there is no randomness.
    pub(crate) fn set(self) -> io::Result<Set> {
        let mark = Mark {
            script: self.script,
            random: getrandom::u64()?,
            survived: self.is_proved()?,
        };
        self.keep(&mark)?;
        Ok(Set { canary: self, mark })
    }

    /// Whether this script is known to leave it alone.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn is_proved(&self) -> io::Result<bool> {
        let mark: Option<Mark> = read_checked(&self.path)?;
        Ok(mark.is_some_and(|mark| mark.script == self.script && mark.survived))
    }

    fn keep(&self, mark: &Mark) -> io::Result<()> {
        write_checked(&self.path, mark)?.sync_all()?;
        File::open(self.path.parent().unwrap_or(&self.path))?.sync_all()
    }
}

impl Set {
    /// After the script has run: what the brain has to know.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn look(mut self) -> io::Result<Event> {
        let found: Option<Mark> = read_checked(&self.canary.path)?;
        let proved = found.as_ref() == Some(&self.mark);
        if proved != self.mark.survived || !proved {
            self.mark.survived = proved;
            self.canary.keep(&self.mark)?;
        }
        Ok(Event::SpoolSurvivesReset { proved })
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
        let one = script(&path, "one");
        let canary = || Canary::of(dir.path(), &one).unwrap();
        assert!(!canary().is_proved().unwrap());
        let set = canary().set().unwrap();
        assert!(!canary().is_proved().unwrap(), "no reset has run yet");
        assert!(proved(&set.look().unwrap()));
        assert!(canary().is_proved().unwrap());
        let set = canary().set().unwrap();
        assert!(canary().is_proved().unwrap(), "set again, it stays proved");
        assert!(proved(&set.look().unwrap()));
        let other = Canary::of(dir.path(), &script(&path, "two")).unwrap();
        assert!(!other.is_proved().unwrap());
    }

    #[test]
    fn a_reset_that_takes_it_along_or_sets_it_back_is_believed_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let reset = script(&dir.path().join("reset"), "");
        let file = dir.path().join("canary");
        let set = || Canary::of(dir.path(), &reset).unwrap().set().unwrap();
        let trusted = || Canary::of(dir.path(), &reset).unwrap().is_proved().unwrap();
        assert!(proved(&set().look().unwrap()));
        let snapshot = fs::read(&file).unwrap();
        let gone = set();
        fs::remove_file(&file).unwrap();
        assert!(!proved(&gone.look().unwrap()) && !trusted());
        assert!(proved(&set().look().unwrap()) && trusted());
        let set_back = set();
        fs::write(&file, snapshot).unwrap();
        assert!(!proved(&set_back.look().unwrap()) && !trusted());
    }
}
