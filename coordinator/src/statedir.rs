//! Where everything of one coordinator lies, and who may use it. Owns the
//! names in the state directory and its lock: one process at a time, refused
//! by name with the number of the one that has it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Others may pass through, to the socket that everyone may connect to, and
/// see nothing else: everything made here is for the owner only.
const MODE: u32 = 0o711;
const SECRET_MODE: u32 = 0o600;

/// The directory, not necessarily there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

/// The right to use a state directory, held until it is dropped.
#[derive(Debug)]
pub struct Locked {
    directory: StateDir,
    _lock: Flock<File>,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(
        "the state directory {path} is in use by process {holder}; two coordinators on one \
         directory would give the same work out twice. Stop that one first: systemctl stop \
         farmbell-coordinator, or: kill {holder}"
    )]
    InUse { path: String, holder: String },
    #[error("{path} is no state directory yet; run: farmbell-coordinator init --state {path}")]
    NotMade { path: String },
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
}

impl StateDir {
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self { path }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory, if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn make(&self) -> Result<(), StateError> {
        DirBuilder::new()
            .recursive(true)
            .mode(MODE)
            .create(&self.path)
            .map_err(self.failed(""))
    }

    /// Takes the directory for this process.
    ///
    /// # Errors
    /// [`StateError::InUse`], or if it is not there.
    pub fn lock(self) -> Result<Locked, StateError> {
        let path = self.path.join("lock");
        let opened = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(SECRET_MODE)
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StateError::NotMade {
                    path: self.path.display().to_string(),
                });
            }
            Err(error) => return Err(self.failed("lock")(error)),
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                lock.set_len(0)
                    .and_then(|()| writeln!(*lock, "{}", std::process::id()))
                    .map_err(self.failed("lock"))?;
                Ok(Locked {
                    directory: self,
                    _lock: lock,
                })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder)
                    .map_err(self.failed("lock"))?;
                Err(StateError::InUse {
                    path: self.path.display().to_string(),
                    holder: holder.trim().to_owned(),
                })
            }
            Err((_, errno)) => Err(self.failed("lock")(errno.into())),
        }
    }

    /// The farm's records.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path.join("farm.db")
    }

    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// What live attempts have sent whole.
    #[must_use]
    pub fn delivered(&self) -> PathBuf {
        self.path.join("delivered")
    }

    /// Held by a backup while it copies files, so that none is removed.
    #[must_use]
    pub fn files_lock(&self) -> PathBuf {
        self.path.join("files.lock")
    }

    /// Secrets of the QUIC endpoints that outlive the process.
    #[must_use]
    pub fn quic_keys(&self) -> PathBuf {
        self.path.join("quic.keys")
    }

    /// What a program shows that changes things over TCP.
    #[must_use]
    pub fn api_token(&self) -> PathBuf {
        self.path.join("api.token")
    }

    /// Where the API listens for this host's operators.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join("farmbell.sock")
    }

    /// The addresses that a running coordinator listens on.
    #[must_use]
    pub fn addresses(&self) -> PathBuf {
        self.path.join("addresses.json")
    }

    /// The note of the event in hand ([`Guard`](crate::driver::Guard)).
    #[must_use]
    pub fn in_hand(&self) -> PathBuf {
        self.path.join("in-hand")
    }

    fn failed(&self, name: &str) -> impl FnOnce(io::Error) -> StateError {
        let path = self.path.join(name).display().to_string();
        move |source| StateError::Io { path, source }
    }
}

impl Locked {
    #[must_use]
    pub const fn directory(&self) -> &StateDir {
        &self.directory
    }

    /// The API's token, made if there is none.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn api_token(&self) -> Result<String, StateError> {
        let path = self.directory.api_token();
        let failed = self.directory.failed("api.token");
        match fs::read_to_string(&path) {
            Ok(token) => Ok(token.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = [0; 32];
                getrandom::fill(&mut bytes)
                    .map_err(io::Error::other)
                    .and_then(|()| {
                        let token: String =
                            bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                        write_secret(&path, &token).map(|()| token)
                    })
                    .map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Replaces the file of addresses as a whole.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_addresses(&self, json: &str) -> Result<(), StateError> {
        let path = self.directory.addresses();
        let staged = path.with_extension("new");
        fs::write(&staged, json)
            .and_then(|()| fs::rename(&staged, &path))
            .map_err(self.directory.failed("addresses.json"))
    }
}

fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(SECRET_MODE)
        .open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_by_the_number_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path().join("state"));
        assert!(matches!(
            state.clone().lock(),
            Err(StateError::NotMade { .. })
        ));
        state.make().unwrap();
        let first = state.clone().lock().unwrap();
        let refused = state.clone().lock().unwrap_err().to_string();
        assert!(
            refused.contains(&std::process::id().to_string()),
            "{refused}"
        );
        drop(first);
        state.lock().unwrap();
    }

    #[test]
    fn the_api_token_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let locked = StateDir::at(dir.path().to_owned()).lock().unwrap();
        let token = locked.api_token().unwrap();
        assert_eq!(token.len(), 64);
        assert_eq!(locked.api_token().unwrap(), token);
    }
}
