//! An ordinary user on a host that gives it nothing: no root, no unit of
//! systemd's, no control groups, no namespaces. Owns whose the agent's files
//! are, and programs that such a user can reach. Where tests are no root
//! themselves, they are that user.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, chown};

use super::TestFarm;
use super::around::passed_on;

/// Of nobody on any system: what such a user owns, nobody else does.
const USER: u32 = 61_234;

/// See the module.
#[derive(Clone, Debug)]
pub struct Ordinary {
    agent: PathBuf,
    without: PathBuf,
    user: Option<u32>,
}

impl Ordinary {
    /// A user who may look into the farm's directory, with programs there: a
    /// build tree may be closed to it.
    ///
    /// # Panics
    /// If the programs cannot be copied.
    #[must_use]
    pub fn in_directory_of(farm: &TestFarm) -> Self {
        let copied = |program: PathBuf| {
            let name = program.file_name().expect("a program has a name");
            let copy = farm.file("programs").join(name);
            std::fs::copy(&program, &copy).expect("a program can be copied");
            may_be_used(&copy);
            copy
        };
        std::fs::create_dir_all(farm.file("programs")).expect("a directory can be made");
        may_be_used(farm.path());
        may_be_used(&farm.file("programs"));
        Self {
            agent: copied(farm.binaries().agent()),
            without: copied(farm.binaries().without()),
            user: Uid::effective().is_root().then_some(USER),
        }
    }

    /// Gives the user a file or a directory.
    ///
    /// # Panics
    /// If it cannot be given.
    pub fn owns(&self, path: &Path) {
        let user = self.user.map(Uid::from_raw);
        chown(path, user, None).expect("root gives, and others own it already");
    }

    /// The user's number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.user.unwrap_or_else(|| Uid::effective().as_raw())
    }

    /// The agent's command, as such a user types it.
    pub(super) fn runs(&self, command: &Command) -> Command {
        let mut poorer = match self.user {
            None => Command::new("env"),
            Some(user) => {
                let mut dropped = Command::new("setpriv");
                let number = user.to_string();
                dropped.args([
                    "--reuid",
                    &number,
                    "--regid",
                    &number,
                    "--clear-groups",
                    "env",
                ]);
                dropped
            }
        };
        poorer
            .args(["--unset=NOTIFY_SOCKET", "--unset=FARMBELL_LAUNCHER"])
            .arg(&self.without)
            .args(["namespaces", "--"]);
        let mut own = Command::new(&self.agent);
        own.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => own.env(name, value),
                None => own.env_remove(name),
            };
        }
        passed_on(&mut poorer, &own);
        poorer
    }
}

fn may_be_used(path: &Path) {
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, mode).expect("a file's owner may say who uses it");
}
