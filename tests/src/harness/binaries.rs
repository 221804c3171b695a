//! Where the daemons' executables are. Owns building them; never a copy.
//!
//! In a debug build they are the workspace's, which the tests compile anyway.
//! In an optimised one they are what the packages hold: each daemon is built by
//! itself, since a build of the whole workspace unifies features and would put
//! the simulation's switches and the tests' runtime into what is measured.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names the directory with the executables and skips building them.
const DIRECTORY: &str = "FARMBELL_TEST_BINARIES";
/// The agent's own profile, as `packaging/build-debs` uses it.
const AGENT_PROFILE: &str = "agent";

#[derive(Clone, Debug)]
pub struct Binaries {
    directory: PathBuf,
    agent: PathBuf,
}

impl Binaries {
    /// Executables of this very source tree, built once per process.
    ///
    /// # Panics
    /// If they cannot be built.
    #[must_use]
    pub fn built() -> Self {
        static BUILT: OnceLock<Binaries> = OnceLock::new();
        BUILT.get_or_init(Self::build).clone()
    }

    fn build() -> Self {
        if let Some(directory) = std::env::var_os(DIRECTORY) {
            return Self::all_in(PathBuf::from(directory));
        }
        let directory = profile_directory();
        match profile_of(&directory) {
            "release" => {
                cargo_build("release", &["--package", "farmbell-tests"]);
                cargo_build("release", &["--package", "farmbell-coordinator"]);
                cargo_build(AGENT_PROFILE, &["--package", "farmbell-agent"]);
                let agents = directory.with_file_name(AGENT_PROFILE);
                Self {
                    agent: agents.join("farmbell-agent"),
                    directory,
                }
            }
            profile => {
                cargo_build(profile, &["--workspace"]);
                Self::all_in(directory)
            }
        }
    }

    fn all_in(directory: PathBuf) -> Self {
        Self {
            agent: directory.join("farmbell-agent"),
            directory,
        }
    }

    #[must_use]
    pub fn coordinator(&self) -> PathBuf {
        self.directory.join("farmbell-coordinator")
    }

    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.agent.clone()
    }

    /// The program that plays the parts of the figures' floors.
    #[must_use]
    pub fn floor(&self) -> PathBuf {
        self.directory.join("floor")
    }

    /// The program that takes something of the kernel away from another.
    #[must_use]
    pub fn without(&self) -> PathBuf {
        self.directory.join("without")
    }

    #[must_use]
    pub fn cli(&self) -> PathBuf {
        self.directory.join("farmbell")
    }
}

fn cargo_build(profile: &str, packages: &[&str]) {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args([
            "build",
            "--quiet",
            "--locked",
            "--bins",
            "--profile",
            profile,
        ])
        .args(packages)
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"));
    // What cargo told this test of its own package would make build scripts that
    // look at such variables run again, and half of the tree be built anew.
    for (name, _) in std::env::vars_os() {
        let of_this_package = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        if of_this_package {
            cargo.env_remove(name);
        }
    }
    let status = cargo.status().expect("cargo can be started");
    assert!(status.success(), "the daemons do not build");
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
