//! Where the daemons' executables are. Owns building them; never a copy.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the directory with the executables and skips building them.
const DIRECTORY: &str = "FARMBELL_TEST_BINARIES";

#[derive(Clone, Debug)]
pub struct Binaries {
    directory: PathBuf,
}

impl Binaries {
    /// Executables of this very source tree, in the profile of the caller.
    ///
    /// # Panics
    /// If they cannot be built.
    #[must_use]
    pub fn built() -> Self {
        if let Some(directory) = std::env::var_os(DIRECTORY) {
            return Self {
                directory: PathBuf::from(directory),
            };
        }
        let directory = profile_directory();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .args(["build", "--quiet", "--locked", "--workspace", "--bins"])
            .arg("--profile")
            .arg(profile_of(&directory))
            .arg("--manifest-path")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"));
        let status = cargo.status().expect("cargo can be started");
        assert!(status.success(), "the daemons do not build");
        Self { directory }
    }

    #[must_use]
    pub fn coordinator(&self) -> PathBuf {
        self.directory.join("farmbell-coordinator")
    }

    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.directory.join("farmbell-agent")
    }

    /// The program that plays the parts of the figures' floors.
    #[must_use]
    pub fn floor(&self) -> PathBuf {
        self.directory.join("floor")
    }

    #[must_use]
    pub fn cli(&self) -> PathBuf {
        self.directory.join("farmbell")
    }
}

/// The directory of cargo's that holds this process's executable: a test lies
/// in its `deps`, a program beside the daemons.
fn profile_directory() -> PathBuf {
    let own = std::env::current_exe().expect("a process knows its executable");
    let directory = own.parent().expect("an executable lies in a directory");
    match directory.file_name() {
        Some(name) if name == "deps" => directory.parent().expect("deps lies in a profile"),
        _ => directory,
    }
    .to_path_buf()
}

fn profile_of(directory: &Path) -> &str {
    match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    }
}
