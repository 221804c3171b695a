//! Forecast. Owns when a waiting job will start: the first builder to come
//! free, and what those before it of the same class take. Says nothing where
//! that is unknown, and decides nothing.

use std::time::Duration;

use farmbell_protocol::id::{BuilderId, JobId};

use crate::effect::Why;
use crate::estimates::span_words;
use crate::farm::Farm;
use crate::jobs::Job;

/// Jobs before it that are counted: who has more before him waits for long,
/// and nobody is held up by the counting.
const AHEAD_MAX: usize = 100_000;

/// What is known of a waiting job's start.
pub(crate) struct Forecast {
    /// Jobs of the same class that start before it.
    ahead: usize,
    pub(crate) starts_in: Option<Duration>,
}

impl Forecast {
    /// What the builders' own state does not say already.
    pub(crate) fn words(&self) -> Option<String> {
        let starts = self.starts_in.map_or_else(
            || "start unknown".to_owned(),
            |span| format!("starts in {}", span_words(span)),
        );
        match self.ahead {
            0 => None,
            ahead => Some(format!("{ahead} of its class before it, {starts}")),
        }
    }
}

impl Farm {
    /// `builders` with what hinders each, the first of all reasons first.
    pub(crate) fn forecast<N>(
        &self,
        id: JobId,
        job: &Job,
        builders: &[(BuilderId, N, Vec<Why>)],
    ) -> Forecast {
        let (class, rank) = (job.class, job.rank());
        let ahead = self.queue.ahead(id, job.owner, class, rank, AHEAD_MAX);
        let starts_in = self.starts_behind(ahead, job, builders);
        Forecast { ahead, starts_in }
    }

    fn starts_behind<N>(
        &self,
        ahead: usize,
        job: &Job,
        builders: &[(BuilderId, N, Vec<Why>)],
    ) -> Option<Duration> {
        let mut serving: u32 = 0;
        let mut first_free = None;
        for why in builders.iter().filter_map(|(_, _, why)| why.first()) {
            let left = if let Why::Busy(attempt) = why {
                self.left_of(*attempt)
            } else if is_coming(why) {
                Some(Duration::ZERO)
            } else {
                continue;
            };
            serving += 1;
            first_free = first_free.into_iter().chain(left).min();
        }
        let first_free = first_free?;
        if ahead == 0 {
            return Some(first_free);
        }
        let mean = self.estimates.mean(job.like(&self.queue).architecture)?;
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        Some(first_free + mean.saturating_mul(ahead) / serving)
    }
}

/// Free, or about to be.
const fn is_coming(why: &Why) -> bool {
    matches!(
        why,
        Why::Free | Why::Dirty | Why::Resetting | Why::AwaitsUpload
    )
}
