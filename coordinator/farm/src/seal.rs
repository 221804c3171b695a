//! Seals. Owns the numbers that only this coordinator can have given out: half
//! of an epoch's or an attempt's random part is random, the other half follows
//! from a secret that no store and no agent has. So an agent can say again what
//! it was once told, and can make nothing up: the word of one that is hostile
//! does not stop the farm. Fencing still compares the whole number.

use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::{AttemptId, Epoch, JobId};

/// The coordinator's secret, as old as its identity: a restored store finds
/// the seals of the life that it has forgotten.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SealKey([u8; 32]);

impl SealKey {
    #[must_use]
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    #[must_use]
    pub fn epoch(&self, counter: u64, random: u64) -> Epoch {
        let random = self.seal(random, [counter, 0, 0]);
        Epoch { counter, random }
    }

    pub(crate) fn gave_epoch(&self, epoch: Epoch) -> bool {
        self.epoch(epoch.counter, epoch.random) == epoch
    }

    pub(crate) fn attempt(
        &self,
        job: JobId,
        generation: u16,
        number: u16,
        random: u64,
    ) -> AttemptId {
        let what = [job.0, u64::from(generation), u64::from(number)];
        AttemptId {
            job,
            generation,
            number,
            nonce: self.seal(random, what),
        }
    }

    pub(crate) fn gave_attempt(&self, attempt: AttemptId) -> bool {
        let AttemptId {
            job,
            generation,
            number,
            nonce,
        } = attempt;
        self.attempt(job, generation, number, nonce) == attempt
    }

    /// The upper half of `random`, and below it what the secret makes of both.
    fn seal(&self, random: u64, what: [u64; 3]) -> u64 {
        let unique = random >> u32::BITS;
        let mut bytes = [0; 64];
        let (secret, parts) = bytes.split_at_mut(self.0.len());
        secret.copy_from_slice(&self.0);
        let words = [unique, what[0], what[1], what[2]];
        for (place, word) in parts.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let [a, b, c, d, ..] = Digest::of(&bytes).0;
        (unique << u32::BITS) | u64::from(u32::from_le_bytes([a, b, c, d]))
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sealed_with_the_secret_is_known_again() {
        let (ours, theirs) = (SealKey::new([1; 32]), SealKey::new([2; 32]));
        let epoch = ours.epoch(7, u64::MAX);
        assert!(ours.gave_epoch(epoch));
        assert!(!theirs.gave_epoch(epoch));
        assert!(!ours.gave_epoch(Epoch {
            counter: 8,
            ..epoch
        }));
        let attempt = ours.attempt(JobId(9), 2, 3, 0x1234_5678_9abc_def0);
        assert!(ours.gave_attempt(attempt));
        assert_eq!(attempt.nonce >> 32, 0x1234_5678, "it stays a nonce");
        let made_up = [
            AttemptId {
                job: JobId(10),
                ..attempt
            },
            AttemptId {
                generation: 3,
                ..attempt
            },
            AttemptId {
                number: 4,
                ..attempt
            },
            AttemptId {
                nonce: attempt.nonce ^ 1,
                ..attempt
            },
        ];
        assert!(made_up.iter().all(|attempt| !ours.gave_attempt(*attempt)));
    }

    #[test]
    fn the_secret_stays_out_of_debug_lines() {
        let key = SealKey::new([123; 32]);
        assert_eq!(format!("{key:?}"), "SealKey(secret)");
    }
}
