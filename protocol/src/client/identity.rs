//! Who this side is: one key, kept in one file, and the self-signed
//! certificate that carries it through a handshake.
//!
//! Owns making, keeping and reading the key. Decides nothing about who is
//! trusted (`tls.rs` checks possession, the farm knows the rows). Invariant: a
//! key that was given out once is never replaced by this code; a file that
//! cannot be read is an error, not a reason for a new key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::digest::Digest;
use crate::id::KeyHash;

/// The key's file within the identity's directory.
const KEY_FILE: &str = "key.pem";
/// The only name in a certificate. Nobody checks it: keys are what is checked.
pub(crate) const SERVER_NAME: &str = "farmbell";

/// A key and the certificate that shows it.
pub struct Identity {
    key: PrivatePkcs8KeyDer<'static>,
    certificate: CertificateDer<'static>,
    hash: KeyHash,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} can be read by others (mode {mode:03o}); run: chmod 600 {}", path.display(), path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error(
        "{} holds no usable key ({why}); restore it from a backup, or remove it and join again as a new agent",
        path.display()
    )]
    Unreadable { path: PathBuf, why: String },
    #[error("no key could be made: {0}")]
    Make(#[from] rcgen::Error),
}

impl Identity {
    /// The identity kept in `directory`, made there if there is none.
    ///
    /// # Errors
    /// If the directory or the key cannot be read, written or trusted.
    pub fn load_or_create(directory: &Path) -> Result<Self, IdentityError> {
        let path = directory.join(KEY_FILE);
        match fs::read_to_string(&path) {
            Ok(pem) => Self::read(&path, &pem),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                fs::create_dir_all(directory).map_err(at("create", directory))?;
                write_new(directory, &path, pair.serialize_pem().as_bytes())?;
                Self::of(&pair).map_err(IdentityError::Make)
            }
            Err(error) => Err(at("read", &path)(error)),
        }
    }

    /// An identity that is gone with the process.
    ///
    /// # Errors
    /// If the operating system has no randomness.
    pub fn ephemeral() -> Result<Self, IdentityError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Self::of(&pair).map_err(IdentityError::Make)
    }

    #[must_use]
    pub const fn key_hash(&self) -> KeyHash {
        self.hash
    }

    /// A secret that follows from the key and is good for this purpose only.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, self.key.secret_pkcs8_der())
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }

    fn read(path: &Path, pem: &str) -> Result<Self, IdentityError> {
        let metadata = fs::metadata(path).map_err(at("look at", path))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = path.to_owned();
            return Err(IdentityError::Exposed { path, mode });
        }
        let unreadable = |error: rcgen::Error| IdentityError::Unreadable {
            path: path.to_owned(),
            why: error.to_string(),
        };
        let pair = KeyPair::from_pem(pem).map_err(unreadable)?;
        Self::of(&pair).map_err(unreadable)
    }

    fn of(pair: &KeyPair) -> Result<Self, rcgen::Error> {
        let parameters = CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
        let certificate = parameters.self_signed(pair)?.der().clone();
        Ok(Self {
            key: PrivatePkcs8KeyDer::from(pair.serialize_der()),
            hash: hash_of_spki(&pair.subject_public_key_info()),
            certificate,
        })
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// The hash that names a public key, from its SPKI in DER.
pub(crate) fn hash_of_spki(spki: &[u8]) -> KeyHash {
    KeyHash(Digest::of(spki).0)
}

/// Writes a secret so that it is whole or absent, whatever happens, and never
/// readable by others.
pub(crate) fn write_new(directory: &Path, path: &Path, secret: &[u8]) -> Result<(), IdentityError> {
    let staged = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)
        .map_err(at("create", &staged))?;
    file.write_all(secret).map_err(at("write", &staged))?;
    file.sync_all().map_err(at("sync", &staged))?;
    fs::rename(&staged, path).map_err(at("rename into place", path))?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(at("sync", directory))
}

pub(crate) fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Io {
        doing,
        path,
        source,
    }
}
