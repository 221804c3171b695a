//! The recipe `debian-binary` and its chroots: which one a job gets, and what
//! it is told where there is none. The shipped script itself is run; what it
//! builds is shown by the stories with real daemons.
#![expect(
    clippy::unwrap_used,
    reason = "what these stories are told with is test code too"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const RECIPE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../packaging/recipes/debian-binary"
);
const CHROOT_PROBLEM: i32 = 66;
const BUILDER_PROBLEM: i32 = 67;
const BUILD_FAILED: i32 = 1;

/// An attempt's places, with a source package by name.
struct Attempt {
    root: tempfile::TempDir,
}

impl Attempt {
    fn new(chroots: &[&str]) -> Self {
        let attempt = Self {
            root: tempfile::tempdir().unwrap(),
        };
        for place in ["inputs", "outputs", "parameters", "chroots", "bin"] {
            fs::create_dir(attempt.place(place)).unwrap();
        }
        for tool in ["cat", "nproc"] {
            let found = Path::new("/usr/bin").join(tool);
            symlink(found, attempt.place("bin").join(tool)).unwrap();
        }
        fs::write(attempt.place("inputs").join("hello_1.dsc"), "").unwrap();
        for name in chroots {
            fs::write(attempt.place("chroots").join(name), "").unwrap();
        }
        attempt
    }

    fn place(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn parameter(&self, chroot: &str) {
        fs::write(self.place("parameters").join("chroot"), chroot).unwrap();
    }

    /// Runs the recipe where no sbuild can be found: the exit code, and why.
    fn run(&self, chroots: &Path, suite: &str) -> (i32, String) {
        let status = Command::new("/bin/sh")
            .arg(RECIPE)
            .env_clear()
            .env("PATH", self.place("bin"))
            .env("FARMBELL_WORKSPACE", self.root.path())
            .env("FARMBELL_INPUTS", self.place("inputs"))
            .env("FARMBELL_OUTPUTS", self.place("outputs"))
            .env("FARMBELL_PARAMETERS", self.place("parameters"))
            .env("FARMBELL_REASON", self.place("reason"))
            .env("FARMBELL_CHROOTS", chroots)
            .env("FARMBELL_SUITE", suite)
            .env("FARMBELL_ARCHITECTURE", "arm64")
            .status()
            .unwrap();
        let reason = fs::read_to_string(self.place("reason")).unwrap();
        (status.code().unwrap(), reason)
    }
}

#[test]
fn a_suite_without_a_chroot_is_told_how_one_is_made() {
    let attempt = Attempt::new(&["trixie-arm64.tar.zst"]);
    let (code, why) = attempt.run(&attempt.place("chroots"), "bookworm");
    assert_eq!(code, CHROOT_PROBLEM);
    assert!(why.contains("no chroot bookworm-arm64 here"), "{why}");
    assert!(
        why.contains("mmdebstrap --variant=buildd --architectures=arm64 bookworm"),
        "{why}"
    );
}

#[test]
fn without_a_suite_the_only_chroot_is_taken_and_of_several_none() {
    let attempt = Attempt::new(&["trixie-arm64.tar.zst", "trixie-amd64.tar.zst"]);
    let (_, why) = attempt.run(&attempt.place("chroots"), "");
    // It was found, for the next thing to be missing is sbuild itself.
    assert!(why.contains("no 'sbuild'"), "{why}");

    let attempt = Attempt::new(&["trixie-arm64.tar.zst", "bookworm-arm64.tar.zst"]);
    let (code, why) = attempt.run(&attempt.place("chroots"), "");
    assert_eq!(code, CHROOT_PROBLEM);
    assert!(why.contains("several chroots"), "{why}");
}

#[test]
fn a_job_names_a_chroot_of_the_hosts_and_no_path() {
    let attempt = Attempt::new(&["special.tar"]);
    attempt.parameter("special");
    let (_, why) = attempt.run(&attempt.place("chroots"), "");
    assert!(why.contains("no 'sbuild'"), "{why}");

    attempt.parameter("../special");
    let (code, why) = attempt.run(&attempt.place("chroots"), "");
    assert_eq!(code, BUILD_FAILED);
    assert!(why.contains("not the name of a chroot"), "{why}");

    attempt.parameter("special");
    let (code, why) = attempt.run(Path::new(""), "");
    assert_eq!(code, BUILDER_PROBLEM);
    assert!(why.contains("agent.toml"), "{why}");
}
