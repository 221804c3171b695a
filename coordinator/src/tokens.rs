//! Making join tokens: the secret that only the token's text carries, and the
//! hash of it that the farm keeps. What a token grants is the farm's business;
//! its text is `farmbell_protocol::client::token`'s.

use farmbell_protocol::bounded::{Text, TooLong};
use farmbell_protocol::client::token::Token;
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::KeyHash;

/// A secret that was just made. Its hash goes into the farm; the text is shown
/// once, when the farm has given the token its number.
#[derive(Clone)]
pub struct Secret([u8; 16]);

impl Secret {
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system gives randomness");
        Self(bytes)
    }

    /// What the farm keeps, and compares with the hash of what a Join brings.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Digest::of(&self.0).0
    }

    /// The whole token: its number, where to dial, whom to trust, the secret.
    ///
    /// # Errors
    /// If the address is longer than a token can carry.
    pub fn into_token(
        self,
        id: u64,
        address: &str,
        coordinator: KeyHash,
    ) -> Result<Token, TooLong> {
        Ok(Token {
            id,
            secret: self.0,
            coordinator,
            address: Text::new(address)?,
        })
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}
