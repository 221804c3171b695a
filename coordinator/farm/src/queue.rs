//! The queue. Owns which waiting job goes first and which free builder it goes
//! to, without scanning jobs or builders. Never decides what may run where
//! (placement.rs does, and fills the tables here).
//!
//! Order: owners by virtual time, so that each gets its share of the farm;
//! within an owner by `score · k − submitted`, which ages by itself: a job
//! overtakes one of `n` more points after waiting `n · k` longer. A rank never
//! changes while a job waits, so nothing is ever sorted again.
//!
//! Jobs that the same builders can take are one *class*; builders with the
//! same offer are one *profile*; which class fits which profile is a bit.

mod classes;
mod owners;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use farmbell_protocol::bounded::Name;
use farmbell_protocol::id::{BuilderId, JobId};
use farmbell_protocol::time::Time;

use crate::bits::Bits;
use crate::placement::Profile;
use crate::record::Needs;
use crate::settings::Share;

pub(crate) use classes::{ClassId, ProfileId};
pub(crate) use owners::{OwnerId, Place, TURN};

use classes::Classes;
use owners::Owners;

/// How much longer waiting one point of score is worth.
const SCORE_WORTH: Duration = Duration::from_secs(60);

/// The place of a job within its owner's: the smaller, the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(i64);

impl Rank {
    pub(crate) fn new(priority: i32, submitted: Time) -> Self {
        let submitted = i64::try_from(submitted.0).unwrap_or(i64::MAX);
        let worth = i64::try_from(SCORE_WORTH.as_micros()).unwrap_or(i64::MAX);
        Self(submitted.saturating_sub(i64::from(priority).saturating_mul(worth)))
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    pub(crate) classes: Classes,
    pub(crate) owners: Owners,
    /// Free, clean builders by profile, the longest free first.
    free: BTreeMap<ProfileId, BTreeSet<(u64, BuilderId)>>,
    stamps: BTreeMap<BuilderId, (ProfileId, u64)>,
    next_stamp: u64,
    waiting: u64,
}

impl Queue {
    pub(crate) fn with_shares(shares: BTreeMap<Name, Share>) -> Self {
        Self {
            owners: Owners::with_shares(shares),
            ..Self::default()
        }
    }

    /// How many jobs wait to be started; not those that are held back.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting
    }

    pub(crate) fn push(&mut self, job: JobId, owner: OwnerId, class: ClassId, rank: Rank) {
        let classes = &self.classes;
        let competes = |wanting: &Bits| classes.compete(class, wanting);
        if self.owners.push(owner, class, (rank, job), competes) {
            self.waiting += 1;
            self.classes.waits(class);
        }
    }

    pub(crate) fn remove(&mut self, job: JobId, owner: OwnerId, class: ClassId, rank: Rank) {
        if self.owners.remove(owner, class, rank, job) {
            self.waiting -= 1;
            self.classes.leaves(class);
        }
    }

    pub(crate) fn contains(&self, job: JobId, owner: OwnerId, class: ClassId, rank: Rank) -> bool {
        self.owners.contains(owner, class, rank, job)
    }

    /// One that is free already keeps its turn; one that offers something else
    /// now has been taken off before.
    pub(crate) fn set_free(&mut self, builder: BuilderId, profile: ProfileId) {
        if let Some((known, _)) = self.stamps.get(&builder) {
            debug_assert_eq!(*known, profile, "a free builder's offer changed under it");
            return;
        }
        self.next_stamp += 1;
        self.stamps.insert(builder, (profile, self.next_stamp));
        self.free
            .entry(profile)
            .or_default()
            .insert((self.next_stamp, builder));
    }

    pub(crate) fn unset_free(&mut self, builder: BuilderId) {
        let Some((profile, stamp)) = self.stamps.remove(&builder) else {
            return;
        };
        if let Some(free) = self.free.get_mut(&profile) {
            free.remove(&(stamp, builder));
            if free.is_empty() {
                self.free.remove(&profile);
            }
        }
    }

    pub(crate) fn is_free(&self, builder: BuilderId) -> bool {
        self.stamps.contains_key(&builder)
    }

    pub(crate) fn free_builders(&self) -> impl Iterator<Item = (BuilderId, ProfileId)> + '_ {
        self.stamps
            .iter()
            .map(|(builder, (profile, _))| (*builder, *profile))
    }

    /// The job that this builder should start next.
    pub(crate) fn best_for(&self, builder: BuilderId, profile: ProfileId) -> Option<JobId> {
        self.best_of(builder, profile, |_| true)
    }

    /// The same, if no builder is woken for it yet.
    pub(crate) fn best_unmet_for(&self, builder: BuilderId, profile: ProfileId) -> Option<JobId> {
        self.best_of(builder, profile, |class| self.classes.is_short(class))
    }

    fn best_of(
        &self,
        builder: BuilderId,
        profile: ProfileId,
        counts: impl Fn(ClassId) -> bool,
    ) -> Option<JobId> {
        let fitting = self.classes.of_profile(profile);
        self.owners.best(
            |class| {
                fitting.has(class.index())
                    && !self.classes.get(class).avoids.contains(&builder)
                    && counts(class)
            },
            fitting,
        )
    }

    /// A free builder for jobs of this class.
    pub(crate) fn free_for(&self, class: ClassId) -> Option<BuilderId> {
        let avoids = &self.classes.get(class).avoids;
        self.free
            .iter()
            .filter(|(profile, _)| self.classes.fits(class, **profile))
            .filter_map(|(_, free)| free.iter().find(|(_, builder)| !avoids.contains(builder)))
            .min()
            .map(|(_, builder)| *builder)
    }

    /// How many jobs of each class start before a waiting one, counted to
    /// about `most`.
    pub(crate) fn ahead(&self, place: Place<'_>, most: usize) -> BTreeMap<ClassId, usize> {
        self.owners.ahead(place, most)
    }

    pub(crate) fn intern_class(&mut self, needs: &Needs, avoids: Vec<BuilderId>) -> ClassId {
        self.classes.intern(needs, avoids)
    }

    pub(crate) fn intern_profile(&mut self, profile: Profile) -> ProfileId {
        self.classes.intern_profile(profile)
    }

    /// Waiting jobs in the order they would start if every builder could take
    /// every job and none ended, the first `limit` of them.
    pub(crate) fn first(&self, limit: usize) -> Vec<JobId> {
        self.owners.first(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn score_leads_and_age_catches_up() {
        let minute = |n: u64| Time(n * 60_000_000);
        assert!(Rank::new(10, minute(5)) < Rank::new(0, minute(0)));
        assert!(Rank::new(10, minute(11)) > Rank::new(0, minute(0)));
        assert!(Rank::new(i32::MAX, minute(0)) < Rank::new(i32::MIN, minute(0)));
    }
}
