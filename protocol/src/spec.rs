//! What a job is: the record that travels from the submitter to the recipe.
//! Owns the shape and its limits. Never decides where a job runs (the farm's
//! placement) nor what its recipe does (the agent's recipes).

use serde::{Deserialize, Serialize};

use crate::bounded::{List, Name, Text};
use crate::digest::Digest;

/// One job: one thing to build, for one architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// What a person calls it, for example `hello`.
    pub name: Text<128>,
    /// The version of what is built, where it has one; empty otherwise.
    pub version: Text<128>,
    pub recipe: Name,
    /// Parameters the recipe documents, for example `command`'s `argv`.
    pub parameters: List<Parameter, 64>,
    /// The Debian name of the architecture, for example `amd64`.
    pub architecture: Name,
    /// The distribution series, for example `bookworm`; empty where none.
    pub suite: Name,
    /// One-line apt sources the build may use besides the builder's own.
    pub archives: List<Text<512>, 32>,
    pub arch_scope: ArchScope,
    pub build_profiles: List<Name, 16>,
    pub inputs: List<Input, 256>,
    /// Patterns of outputs to keep, relative to the outputs directory; none
    /// means all.
    pub outputs: List<Text<256>, 64>,
    pub environment: List<Variable, 64>,
    /// Names of secrets the job declares; values never travel in a spec.
    pub secrets: List<Name, 16>,
    pub network: Network,
    pub limits: Limits,
    /// Tags the builder must have.
    pub tags: List<Name, 32>,
    /// The lowest isolation rung the job accepts.
    pub rung: Rung,
    /// Jobs run on virtual builders, or on real ones, exactly as asked.
    pub virtualized: bool,
    pub owner: Name,
    pub private: bool,
    pub priority: i32,
    /// Attempts a generation may take at most; 0 means the farm's default.
    pub retries: u8,
    /// Whom to tell of the verdict (addresses of the farm's notifiers).
    pub notify: List<Text<256>, 8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    pub key: Name,
    pub value: Text<8192>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    pub name: Text<128>,
    pub value: Text<4096>,
}

/// A named file the job needs, by the digest of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    pub name: FileName,
    pub digest: Digest,
    pub length: u64,
    /// Never handed out before the attempt is assigned, nor kept in a cache.
    pub private: bool,
}

/// The architecture of a job that any builder can take.
pub const ANY_ARCHITECTURE: &str = "all";

/// Which of a source's packages the job builds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArchScope {
    /// Architecture-dependent packages, and the independent ones too.
    #[default]
    All,
    ArchOnly,
    IndepOnly,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// No network where the rung can take it away.
    #[default]
    None,
    Full,
}

/// A step of the isolation ladder, weakest first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Rung {
    /// The agent's own uid: trusted submitters only.
    #[default]
    Process,
    /// Namespaces, own uid, no network unless asked for.
    Sandbox,
    /// sbuild or a chroot.
    Chroot,
    /// A machine of its own.
    Virtual,
}

/// What a job may use. 0 means the builder's own limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub total_ms: u64,
    /// Longest time without a byte of log.
    pub silence_ms: u64,
    /// Between TERM and KILL.
    pub grace_ms: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub processes: u32,
    pub cpu_millis: u32,
    pub log_bytes: u64,
    pub outputs: u32,
    pub output_bytes: u64,
}

/// A file name that cannot leave its directory: one or more plain components
/// joined by `/`, none of them empty, `.`, `..`, hidden behind a NUL or a
/// control character, at most 255 bytes each and 512 in all. Checked where it
/// is made and again where it is decoded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct FileName(Text<512>);

/// Why a file name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file name {name:?} is refused: {why}")]
pub struct FileNameError {
    pub name: String,
    pub why: &'static str,
}

impl FileName {
    /// # Errors
    /// If any component is not plain.
    pub fn new(name: impl Into<String>) -> Result<Self, FileNameError> {
        let name = name.into();
        let refused = |name: &str, why| FileNameError {
            name: name.chars().take(80).collect(),
            why,
        };
        if let Some(why) = wrong_with(&name) {
            return Err(refused(&name, why));
        }
        match Text::new(name) {
            Ok(text) => Ok(Self(text)),
            Err(_) => Err(refused("", TOO_LONG)),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const TOO_LONG: &str = "it has more than 512 bytes";

fn wrong_with(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("it is empty");
    }
    if name.len() > 512 {
        return Some(TOO_LONG);
    }
    if name.starts_with('/') {
        return Some("it is absolute");
    }
    if name.chars().any(char::is_control) {
        return Some("it has a control character");
    }
    name.split('/').find_map(|part| match part {
        "" => Some("it has an empty component"),
        "." | ".." => Some("it has a '.' or '..' component"),
        part if part.len() > 255 => Some("a component has more than 255 bytes"),
        _ => None,
    })
}

impl<'de> Deserialize<'de> for FileName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::<512>::deserialize(deserializer)?;
        Self::new(text.into_string()).map_err(serde::de::Error::custom)
    }
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// The sealed outputs of one attempt; stored as a blob and named by its digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub outputs: List<Output, 65536>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub name: FileName,
    pub digest: Digest,
    pub length: u64,
    /// Whether the owner may execute it; no other mode bit survives.
    pub executable: bool,
}

impl Rung {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Sandbox => "sandbox",
            Self::Chroot => "chroot",
            Self::Virtual => "virtual",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_cannot_leave_its_directory() {
        let long = "x".repeat(300);
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a/./b",
            "a//b",
            "a/",
            "nul\0",
            "a\nb",
            &long,
        ] {
            assert!(FileName::new(bad).is_err(), "{bad:?}");
            let bytes = postcard::to_stdvec(&Text::<512>::cut(bad)).unwrap();
            assert!(
                postcard::from_bytes::<FileName>(&bytes).is_err(),
                "{bad:?} decoded"
            );
        }
        for good in ["hello_2.10-3_amd64.deb", "dir/file", "..x", "naïve ☃"] {
            assert_eq!(FileName::new(good).unwrap().as_str(), good);
        }
    }
}
