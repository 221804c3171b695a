//! Builders that sleep dirty until a job wants them (reset rule "before"). Owns
//! which of them sleep, and which is woken for whom. Never resets (reset.rs)
//! nor decides who gets a builder that is awake.
//!
//! Invariant: of each class, as many builders are woken as jobs wait, as far
//! as builders sleep that would take them. One is woken for a class, whatever
//! it takes in the end: when it is ready, or will not be, the class looks again.

use farmbell_protocol::id::BuilderId;

use crate::effect::Why;
use crate::farm::Farm;
use crate::queue::{ClassId, ProfileId};
use crate::record::ResetWhen;

impl Farm {
    /// Keeps the indexes true for this builder: it sleeps if a reset is all
    /// that it lacks, or it would be woken in the place of another.
    pub(crate) fn index_dormant(&mut self, id: BuilderId) {
        let Some(builder) = self.builders.get(&id) else {
            return;
        };
        let by_jobs = builder.record.reset_rule.when == ResetWhen::Before;
        if !by_jobs && builder.dormant.is_none() && builder.woken_for.is_none() {
            return;
        }
        let hindrances = self.hindrances_of(builder);
        let sleeps = (by_jobs && hindrances == [Why::Dirty]).then_some(builder.profile);
        let over = builder.woken_for.filter(|class| {
            hindrances != [Why::Resetting]
                || !self.queue.classes.is_woken(*class, id, builder.profile)
        });
        self.set_dormant(id, sleeps);
        if let Some(class) = over {
            self.wake_is_over(class, id);
        }
    }

    /// Forgets a builder that is being removed.
    pub(crate) fn drop_dormant(&mut self, id: BuilderId) {
        self.set_dormant(id, None);
        if let Some(class) = self.builders.get(&id).and_then(|builder| builder.woken_for) {
            self.wake_is_over(class, id);
        }
    }

    fn set_dormant(&mut self, id: BuilderId, sleeps: Option<ProfileId>) {
        let Some(builder) = self.builders.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut builder.dormant, sleeps);
        if let Some(profile) = before {
            self.dormant.remove(&(profile, id));
        }
        if let Some(profile) = sleeps {
            self.dormant.insert((profile, id));
        }
    }

    fn wake_is_over(&mut self, class: ClassId, id: BuilderId) {
        if let Some(builder) = self.builders.get_mut(&id) {
            builder.woken_for = None;
        }
        self.queue.classes.woke(class, id);
        // Its job may want another one, if this has not taken it.
        self.step.wanting.push(class);
    }

    /// Wakes this builder if a job wants it for which none is woken yet; says
    /// whether.
    pub(crate) fn wake_for_a_job(&mut self, id: BuilderId) -> bool {
        let Some(builder) = self.builders.get_mut(&id) else {
            return false;
        };
        let job = self.queue.best_unmet_for(id, builder.profile);
        let Some(job) = job.and_then(|job| self.jobs.get(&job)) else {
            return false;
        };
        builder.woken_for = Some(job.class);
        self.queue.classes.wakes(job.class, id);
        true
    }

    /// Jobs of this class wait: as many builders are made ready for them.
    pub(crate) fn wake_dormant(&mut self, class: ClassId) {
        while self.queue.classes.is_short(class) {
            let avoids = &self.queue.classes.get(class).avoids;
            let would = |(profile, id): &&(ProfileId, BuilderId)| {
                self.queue.classes.fits(class, *profile) && !avoids.contains(id)
            };
            let Some((_, id)) = self.dormant.iter().find(would).copied() else {
                return;
            };
            self.order_reset_if_due(id);
            self.index_dormant(id);
            if self
                .builders
                .get(&id)
                .is_some_and(|it| it.dormant.is_some())
            {
                // None of these jobs may start now: their owner is at its limit.
                return;
            }
        }
    }
}
