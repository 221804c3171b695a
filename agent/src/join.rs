//! Joining a farm, and what is remembered of it: where the coordinator is,
//! which keys it may show, the highest epoch seen. Written by programs to the
//! state directory, never to `/etc`.
//!
//! Invariant: the file is replaced as a whole and durable before anything
//! rests on it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use farmbell_protocol::bounded::Name;
use farmbell_protocol::client::identity::{Identity, IdentityError};
use farmbell_protocol::client::join::{JoinError, join};
use farmbell_protocol::client::session::{Coordinator, Memory};
use farmbell_protocol::client::token::{Token, TokenError};
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::{Epoch, KeyHash, SessionId};
use serde::{Deserialize, Serialize};

/// What this program calls itself towards the coordinator.
pub const SOFTWARE: &str = concat!("farmbell-agent ", env!("CARGO_PKG_VERSION"));

/// Why this host has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinFailed {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Refused(#[from] JoinError),
    #[error("{path} cannot be written: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "this host has joined {address} already; to leave it and join another farm, remove {path} first"
    )]
    Joined { address: String, path: PathBuf },
    #[error(transparent)]
    Known(#[from] KnownError),
}

/// Why what is remembered cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KnownError {
    #[error(
        "this host has not joined a farm: type on the coordinator: farmbell token create, and here the line it prints"
    )]
    NotJoined,
    #[error("{path} cannot be read: {source}; join again with a new token after removing it")]
    Damaged {
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Where an agent's identity lies.
#[must_use]
pub fn identity_directory(state: &Path) -> PathBuf {
    state.join("identity")
}

/// Exchanges a token for an identity and remembers the coordinator.
///
/// # Errors
/// Each names its cause and what to type.
pub async fn join_farm(state: &Path, token: &str, name: Name) -> Result<Name, JoinFailed> {
    let token: Token = token.parse()?;
    crate::attempt::make_directory(state).map_err(|source| JoinFailed::Write {
        path: state.to_owned(),
        source,
    })?;
    let file = CoordinatorFile::at(state);
    match file.read() {
        Ok(known) if !known.pins.contains(&token.coordinator) => {
            return Err(JoinFailed::Joined {
                address: known.address,
                path: file.path,
            });
        }
        Ok(_) | Err(KnownError::NotJoined) => {}
        Err(error) => return Err(error.into()),
    }
    let identity = Identity::load_or_create(&identity_directory(state))?;
    let software = Name::cut(SOFTWARE);
    let joined = join(&identity, &token, name, software).await?;
    let coordinator = Coordinator {
        address: token.address.into_string(),
        pins: vec![token.coordinator],
        epoch: Epoch::default(),
        session: None,
    };
    file.remember(&coordinator)
        .map_err(|source| JoinFailed::Write {
            path: file.path.clone(),
            source,
        })?;
    Ok(joined.name)
}

/// The coordinator this host has joined, on disk.
#[derive(Clone, Debug)]
pub struct CoordinatorFile {
    path: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    address: String,
    /// Hashes of the coordinator's keys, in hexadecimal.
    pins: Vec<String>,
    epoch_counter: u64,
    /// In hexadecimal: TOML has no unsigned 64 bits.
    epoch_random: String,
    session: u64,
}

impl CoordinatorFile {
    #[must_use]
    pub fn at(state: &Path) -> Self {
        Self {
            path: state.join("coordinator.toml"),
        }
    }

    /// # Errors
    /// [`KnownError::NotJoined`] where there is no file.
    pub fn read(&self) -> Result<Coordinator, KnownError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KnownError::NotJoined);
            }
            Err(error) => return Err(self.damaged(error)),
        };
        let stored: Stored = toml::from_str(&text).map_err(|error| self.damaged(error))?;
        let pins = stored
            .pins
            .iter()
            .map(|pin| pin.parse::<Digest>().map(|pin| KeyHash(pin.0)));
        let pins = pins
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| self.damaged(error))?;
        let random = u64::from_str_radix(&stored.epoch_random, 16);
        Ok(Coordinator {
            address: stored.address,
            pins,
            epoch: Epoch {
                counter: stored.epoch_counter,
                random: random.map_err(|error| self.damaged(error))?,
            },
            session: (stored.session > 0).then_some(SessionId(stored.session)),
        })
    }

    fn damaged(&self, error: impl std::error::Error + Send + Sync + 'static) -> KnownError {
        KnownError::Damaged {
            path: self.path.clone(),
            source: Box::new(error),
        }
    }
}

impl Memory for CoordinatorFile {
    fn remember(&self, coordinator: &Coordinator) -> io::Result<()> {
        let stored = Stored {
            address: coordinator.address.clone(),
            pins: coordinator.pins.iter().map(KeyHash::to_string).collect(),
            epoch_counter: coordinator.epoch.counter,
            epoch_random: format!("{:016x}", coordinator.epoch.random),
            session: coordinator.session.map_or(0, |session| session.0),
        };
        let text = toml::to_string(&stored).map_err(io::Error::other)?;
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        let directory = self.path.parent().unwrap_or(&self.path);
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = CoordinatorFile::at(dir.path());
        assert!(matches!(file.read(), Err(KnownError::NotJoined)));
        let coordinator = Coordinator {
            address: "farm.example:8440".to_owned(),
            pins: vec![KeyHash([7; 32]), KeyHash([9; 32])],
            epoch: Epoch {
                counter: 3,
                random: u64::MAX,
            },
            session: Some(SessionId(12)),
        };
        file.remember(&coordinator).unwrap();
        assert_eq!(file.read().unwrap(), coordinator);
        fs::write(&file.path, "address = 5").unwrap();
        assert!(matches!(file.read(), Err(KnownError::Damaged { .. })));
    }
}
