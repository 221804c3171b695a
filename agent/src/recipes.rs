//! Recipes: executables that know how to do one kind of job. Owns the contract
//! between the agent and a recipe, and where recipes are found.
//!
//! # The contract
//!
//! A recipe `NAME` is an executable file `NAME` in one of the directories of
//! `agent.toml`'s `recipes`, or one that ships inside the agent (`command`,
//! `debian-binary`). It is copied into the attempt before it starts, so that
//! changing it touches no running build. It runs with standard input closed
//! and both outputs in the log, in a directory of its own, with this and
//! nothing else in its environment, beside the job's own variables:
//!
//! | variable | meaning |
//! |---|---|
//! | `FARMBELL_WORKSPACE` | where it starts, empty; also `HOME` |
//! | `FARMBELL_INPUTS` | the job's inputs by name |
//! | `FARMBELL_OUTPUTS` | what it leaves here is the result |
//! | `FARMBELL_PARAMETERS` | one file per parameter; values that repeat, one a line |
//! | `FARMBELL_SECRETS` | one file per declared secret |
//! | `FARMBELL_ARCHIVES` | a file of one-line apt sources |
//! | `FARMBELL_CHROOTS` | the directory of chroots that `agent.toml` names; empty without one |
//! | `FARMBELL_REASON` | a file for one line: why it ended as it did |
//! | `FARMBELL_ATTEMPT`, `FARMBELL_JOB`, `FARMBELL_BUILDER` | who runs |
//! | `FARMBELL_ARCHITECTURE`, `FARMBELL_SUITE`, `FARMBELL_PROFILES` | what to build for |
//! | `FARMBELL_ARCH_SCOPE` | `all`, `arch` or `indep` |
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | succeeded |
//! | 64 | failed: outputs are missing |
//! | 65 | failed: build dependencies that no archive offers now; the reason names them |
//! | 66 | failed: the chroot or base image could not be made ready |
//! | 67 | the builder is to blame; the job is tried elsewhere |
//! | 68 | given back without blame |
//! | any other, or a signal | failed: the build |
//!
//! TERM asks it to end; KILL follows after the grace. Whatever it started is
//! ended with it. The recipe `command` is the job's own `argv`, run by the
//! supervisor itself, under the same contract.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use farmbell_protocol::bounded::Reason;
use farmbell_protocol::outcome::{ExitStatus, FailureKind, Outcome};

/// The recipe that runs the job's own `argv`.
pub const COMMAND: &str = "command";
/// Recipes that ship inside the agent.
const SHIPPED: &[(&str, &str)] = &[(
    "debian-binary",
    include_str!("../../packaging/recipes/debian-binary"),
)];

pub const OUTPUTS_MISSING: u8 = 64;
pub const DEPENDENCY_WAIT: u8 = 65;
pub const CHROOT_PROBLEM: u8 = 66;
pub const BUILDER_PROBLEM: u8 = 67;
pub const GIVEN_BACK: u8 = 68;

/// Where a builder's recipes come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipes {
    directories: Vec<PathBuf>,
}

/// One recipe, found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipe {
    Command,
    File(PathBuf),
    Shipped(&'static str),
}

impl Recipes {
    /// Earlier directories win, and all of them over what is shipped.
    #[must_use]
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self { directories }
    }

    /// The names of all recipes there are now.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = SHIPPED.iter().map(|(name, _)| (*name).to_owned()).collect();
        names.push(COMMAND.to_owned());
        for directory in &self.directories {
            match fs::read_dir(directory) {
                Ok(entries) => names.extend(
                    entries
                        .filter_map(Result::ok)
                        .filter(|entry| is_executable(&entry.path()))
                        .filter_map(|entry| entry.file_name().into_string().ok()),
                ),
                Err(error) => {
                    let path = directory.display();
                    tracing::warn!(%path, %error, "a directory of recipes cannot be read");
                }
            }
        }
        names.sort();
        names.dedup();
        names
    }

    #[must_use]
    pub fn find(&self, name: &str) -> Option<Recipe> {
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return None;
        }
        let file = self
            .directories
            .iter()
            .map(|directory| directory.join(name))
            .find(|path| is_executable(path));
        if let Some(path) = file {
            return Some(Recipe::File(path));
        }
        if name == COMMAND {
            return Some(Recipe::Command);
        }
        SHIPPED
            .iter()
            .find(|(shipped, _)| *shipped == name)
            .map(|(_, text)| Recipe::Shipped(text))
    }
}

impl Recipe {
    /// Copies the recipe into an attempt; `command` has nothing to copy.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn copy_to(&self, path: &Path) -> io::Result<bool> {
        match self {
            Self::Command => return Ok(false),
            Self::File(from) => drop(fs::copy(from, path)?),
            Self::Shipped(text) => fs::write(path, text)?,
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(true)
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// What a recipe's end means.
#[must_use]
pub fn meaning(exit: ExitStatus, reason: Option<Reason>) -> Outcome {
    let code = match exit {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(signal) => {
            let said = || Reason::cut(format!("ended by signal {signal}"));
            return failed(FailureKind::Build, reason.unwrap_or_else(said));
        }
    };
    let why = reason.unwrap_or_else(|| Reason::cut(format!("exit code {code}")));
    match code {
        0 => Outcome::Succeeded,
        OUTPUTS_MISSING => failed(FailureKind::Outputs, why),
        DEPENDENCY_WAIT => failed(FailureKind::DependencyWait, why),
        CHROOT_PROBLEM => failed(FailureKind::ChrootProblem, why),
        BUILDER_PROBLEM => Outcome::BuilderProblem { why },
        GIVEN_BACK => Outcome::GivenBack { why },
        _ => failed(FailureKind::Build, why),
    }
}

fn failed(kind: FailureKind, why: Reason) -> Outcome {
    Outcome::Failed { kind, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_recipes_wins_over_what_is_shipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("debian-binary");
        fs::write(&path, "#!/bin/sh\n").unwrap();
        let recipes = Recipes::new(vec![dir.path().to_owned()]);
        assert!(matches!(
            recipes.find("debian-binary"),
            Some(Recipe::Shipped(_))
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(recipes.find("debian-binary"), Some(Recipe::File(path)));
        assert_eq!(recipes.names(), ["command", "debian-binary"]);
        assert_eq!(recipes.find("../debian-binary"), None);
    }
}
