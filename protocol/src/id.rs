//! Who and what: the numbers that name agents, builders, jobs, attempts and
//! sessions. Owns their meaning and how they are shown; never hands them out
//! (the coordinator's farm does).
//!
//! Two kinds of fence travel with everything: a [`SessionId`] fences *packets*
//! of an old connection, an [`AttemptId`] with its random nonce fences *work*.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An agent as the coordinator numbers it. Its identity is its key; this is
/// the short name of that row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AgentId(pub u32);

/// One builder of the farm: one place where one attempt runs at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BuilderId(pub u32);

/// A builder within one session: its position among the Hello's builders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BuilderIndex(pub u16);

/// One live connection of an agent, rising per agent, committed before Welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// One job of the queue. Numbered in order; shown as eight base-32 letters
/// that are spread evenly, so that a short prefix is nearly always enough.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u64);

/// The jobs that one submit made. Shown as `JobId` is, behind an `s`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubmissionId(pub u64);

/// One execution of a job: the fence of work, compared for equality as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    pub job: JobId,
    /// Retries of a finished job count up here, from 1.
    pub generation: u16,
    /// Counts up from 1 within a generation, never reused.
    pub number: u16,
    /// Random, so that a restored backup cannot reuse a fence.
    pub nonce: u64,
}

/// The store's fence between coordinators: raised at each start.
/// Ordered by counter; two with one counter and different random parts come
/// from two copies of one store.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch {
    pub counter: u64,
    pub random: u64,
}

/// Which run of the kernel this is; a changed one means running work is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootId(pub [u8; 16]);

/// Which spool this is; a changed one means what it held is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpoolId(pub [u8; 16]);

/// A numbered report of an attempt or a builder; the first is 1, 0 is "none".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Seq(pub u64);

impl Seq {
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The coordinator's challenge to a builder: only a clean proof that names the
/// newest one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CleanNonce(pub u64);

impl fmt::Display for CleanNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for CleanNonce {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        u64::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| ParseIdError {
                text: text.chars().take(80).collect(),
                wanted: "a reset's challenge: 16 hexadecimal digits",
            })
    }
}

/// The hash of a public key (its SPKI in DER): what an identity *is*.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyHash(pub [u8; 32]);

/// What is wrong with a text that should name something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {wanted}")]
pub struct ParseIdError {
    pub text: String,
    pub wanted: &'static str,
}

/// Crockford's base 32, small letters: no i, l, o, u to misread.
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Letters of a shown id: 40 bits.
pub const ID_LETTERS: usize = 8;
const ID_BITS: u32 = 40;
const ID_MASK: u64 = (1 << ID_BITS) - 1;
/// 2^40 divided by the golden ratio, odd: consecutive numbers land far apart.
const SPREAD: u64 = 0x9E_3779_B97F;
/// `SPREAD` · `UNSPREAD` = 1 modulo 2^40.
const UNSPREAD: u64 = inverse(SPREAD);

const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut round = 0;
    while round < 6 {
        x = x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x)));
        round += 1;
    }
    x & ID_MASK
}

fn letters_of(number: u64) -> [u8; ID_LETTERS] {
    let spread = number.wrapping_mul(SPREAD) & ID_MASK;
    let mut out = [b'0'; ID_LETTERS];
    let mut shift = ID_BITS;
    for letter in &mut out {
        shift -= 5;
        let digit = usize::try_from(spread >> shift & 31).expect("five bits fit any usize");
        *letter = LETTERS[digit];
    }
    out
}

/// The numbers whose shown ids start with a prefix: a test on the number, so
/// that a table needs no second column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdPrefix {
    low: u64,
    high: u64,
}

impl IdPrefix {
    /// # Errors
    /// If the text has a letter that no id has, is empty or too long.
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        let wrong = || ParseIdError {
            text: text.chars().take(40).collect(),
            wanted: "an id or the beginning of one (up to 8 of 0-9 and a-z without i, l, o, u)",
        };
        if text.is_empty() || text.len() > ID_LETTERS {
            return Err(wrong());
        }
        let mut value = 0u64;
        for byte in text.bytes() {
            let digit = LETTERS
                .iter()
                .position(|letter| *letter == byte.to_ascii_lowercase())
                .ok_or_else(wrong)?;
            value = value << 5 | digit as u64;
        }
        let free = ID_BITS - 5 * u32::try_from(text.len()).map_err(|_| wrong())?;
        Ok(Self {
            low: value << free,
            high: (value << free) | ((1 << free) - 1),
        })
    }

    #[must_use]
    pub fn matches(self, number: u64) -> bool {
        let spread = number.wrapping_mul(SPREAD) & ID_MASK;
        (self.low..=self.high).contains(&spread)
    }

    /// The one number, where all letters were given.
    #[must_use]
    pub fn exact(self) -> Option<u64> {
        (self.low == self.high).then(|| self.low.wrapping_mul(UNSPREAD) & ID_MASK)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&letters_of(self.0)).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}#{}", self.0)
    }
}

impl FromStr for JobId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        IdPrefix::parse(text)?
            .exact()
            .map(Self)
            .ok_or_else(|| ParseIdError {
                text: text.to_owned(),
                wanted: "a whole job id (8 letters)",
            })
    }
}

impl fmt::Display for SubmissionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = letters_of(self.0);
        let letters = std::str::from_utf8(&letters).map_err(|_| fmt::Error)?;
        f.pad(&format!("s{letters}"))
    }
}

impl fmt::Debug for SubmissionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}#{}", self.0)
    }
}

/// Shown as `hello-job.generation.number`, the way operators speak of it.
impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.job, self.generation, self.number)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.counter, self.random)
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

macro_rules! plain_display {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
plain_display!(AgentId, BuilderId, BuilderIndex, SessionId, Seq);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_id_is_read_back() {
        for number in [0, 1, 2, 1_000_000, ID_MASK] {
            let shown = JobId(number).to_string();
            assert_eq!(shown.parse::<JobId>().unwrap(), JobId(number), "{shown}");
            for letters in 1..=ID_LETTERS {
                assert!(IdPrefix::parse(&shown[..letters]).unwrap().matches(number));
            }
        }
    }

    #[test]
    fn four_letters_tell_a_thousand_consecutive_jobs_apart() {
        let mut seen = std::collections::BTreeSet::new();
        for number in 1..=1000 {
            assert!(seen.insert(JobId(number).to_string()[..4].to_owned()));
        }
    }

    #[test]
    fn a_prefix_with_a_foreign_letter_is_refused() {
        assert!(IdPrefix::parse("ab!").is_err());
        assert!(IdPrefix::parse("").is_err());
        assert!(IdPrefix::parse("123456789").is_err());
    }
}
