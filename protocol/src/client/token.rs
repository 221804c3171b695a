//! Join tokens: the one text that an operator hands to a new agent. It says
//! where the coordinator is, which key it holds, and a secret that the
//! coordinator keeps only as a hash.
//!
//! Owns the text's form: `fbj_` and hexadecimal digits of a postcard-encoded
//! record behind a version byte, with four bytes of its hash at the end, so
//! that a torn copy is told from a wrong token before anything is dialled.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::bounded::Text;
use crate::digest::Digest;
use crate::id::KeyHash;

const PREFIX: &str = "fbj_";
const VERSION: u8 = 1;
const CHECK_BYTES: usize = 4;

/// What a token says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub id: u64,
    pub secret: [u8; 16],
    /// The hash of the coordinator's key: whom to trust.
    pub coordinator: KeyHash,
    /// `host:port` of the coordinator's control socket.
    pub address: Text<256>,
}

/// Why a text is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error(
        "this is no join token: one begins with `{PREFIX}`; make one with: farmbell token create"
    )]
    NoToken,
    #[error("the join token is torn or mistyped: copy it again, whole")]
    Torn,
    #[error(
        "the join token has form {version}, which this version does not know: upgrade the agent"
    )]
    Newer { version: u8 },
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let digits = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or(TokenError::NoToken)?;
        let bytes = from_hex(digits).ok_or(TokenError::Torn)?;
        let (said, check) = bytes
            .split_last_chunk::<CHECK_BYTES>()
            .ok_or(TokenError::Torn)?;
        if checksum(said) != *check {
            return Err(TokenError::Torn);
        }
        match said.split_first() {
            Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|_| TokenError::Torn),
            Some((&version, _)) => Err(TokenError::Newer { version }),
            None => Err(TokenError::Torn),
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = postcard::to_extend(self, vec![VERSION]).map_err(|_| fmt::Error)?;
        f.write_str(PREFIX)?;
        for byte in said.iter().chain(&checksum(&said)) {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .field("coordinator", &self.coordinator)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

fn checksum(said: &[u8]) -> [u8; CHECK_BYTES] {
    let [a, b, c, d, ..] = Digest::of(said).0;
    [a, b, c, d]
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            id: 7,
            secret: *b"sixteen secrets!",
            coordinator: KeyHash([3; 32]),
            address: Text::new("farm.example:8440").unwrap(),
        }
    }

    #[test]
    fn a_token_is_read_back() {
        let text = token().to_string();
        assert_eq!(format!(" {text}\n").parse::<Token>(), Ok(token()));
        assert!(!format!("{:?}", token()).contains("secrets"));
    }

    #[test]
    fn a_torn_or_mistyped_token_is_told_from_a_foreign_text() {
        let text = token().to_string();
        assert_eq!(
            text[..text.len() - 1].parse::<Token>(),
            Err(TokenError::Torn)
        );
        assert_eq!(
            text[..text.len() - 2].parse::<Token>(),
            Err(TokenError::Torn)
        );
        let mistyped = text.replacen('7', "8", 1);
        assert_eq!(mistyped.parse::<Token>(), Err(TokenError::Torn));
        assert_eq!("hello".parse::<Token>(), Err(TokenError::NoToken));
    }
}
