//! Reasons are true. Now and then a waiting job is asked why it waits, and on
//! a copy of the farm the smallest change that the reason names is made: it
//! has to lead to another reason, and from reason to reason to the start of
//! the job. Other jobs are suspended on the copy, so that nobody overtakes it.
//! Owns the question and the counting; what_if.rs owns the copy and the cures.

use std::collections::BTreeMap;

use farmbell_farm::effect::{Explanation, Hold, Why};
use farmbell_protocol::bounded::Name;
use farmbell_protocol::id::JobId;

use super::checker::{Broken, broken};
use super::what_if::WhatIf;
use super::world::World;

/// From the first reason to the start of the job at most.
const CURES_MAX: usize = 32;

macro_rules! reasons {
    ($($pattern:pat => $text:literal;)*) => {
        /// Every reason that a builder can give, but that it is free.
        const WHYS: &[&str] = &[$($text,)*];

        fn name_of(why: &Why) -> &'static str {
            match why {
                Why::Free => "free",
                $($pattern => $text,)*
            }
        }
    };
}

reasons! {
    Why::WrongArchitecture => "wrong architecture";
    Why::WrongVirtualization => "wrong virtualization";
    Why::NoRecipe => "no recipe";
    Why::LacksTag(_) => "lacks tag";
    Why::RestrictedTag(_) => "restricted tag";
    Why::RungTooLow => "rung too low";
    Why::TooLittleMemory => "too little memory";
    Why::TooLittleDisk => "too little disk";
    Why::Excluded => "excluded";
    Why::Resting => "resting";
    Why::Offline => "offline";
    Why::Unreachable => "unreachable";
    Why::AgentFrozen => "agent frozen";
    Why::AgentRevoked => "agent revoked";
    Why::Busy(_) => "busy";
    Why::Dirty => "dirty";
    Why::AwaitsHand => "awaits hand";
    Why::Resetting => "resetting";
    Why::ResetFailing => "reset failing";
    Why::AwaitsUpload => "awaits upload";
    Why::Manual => "manual";
    Why::Draining => "draining";
    Why::Disabled => "disabled";
    Why::Quarantined => "quarantined";
    Why::Unfit(_) => "unfit";
    Why::FarmSuspect => "farm suspect";
}

const HOLDS: &[&str] = &["suspended", "brake", "owner's limit", "dependencies"];

fn hold_name(hold: &Hold) -> &'static str {
    match hold {
        Hold::Suspended => HOLDS[0],
        Hold::Brake { .. } => HOLDS[1],
        Hold::OwnerLimit { .. } => HOLDS[2],
        Hold::Dependencies { .. } => HOLDS[3],
    }
}

/// How often each reason was put to the test.
#[derive(Clone, Debug, Default)]
pub struct Reasons {
    counts: BTreeMap<&'static str, u64>,
}

impl Reasons {
    /// Each reason of the closed set with its count.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let names = WHYS.iter().chain(HOLDS);
        names.map(|name| (*name, self.get(name)))
    }

    fn get(&self, name: &'static str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.counts {
            *self.counts.entry(name).or_default() += count;
        }
    }

    /// Those tested less often than `minimum`.
    #[must_use]
    pub fn below(&self, minimum: u64) -> Vec<&'static str> {
        let few = self.all().filter(|(_, count)| *count < minimum);
        few.map(|(name, _)| name).collect()
    }

    fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }
}

impl World {
    /// Asks one waiting job why it waits, every so many commits.
    pub(super) fn ask_what_if(&mut self) -> Result<(), Broken> {
        self.commits += 1;
        // A farm that has begun the next batch is ahead of what was said.
        let ahead = self.coordinator.is_committing();
        if ahead || !self.commits.is_multiple_of(self.plan.what_if_every) {
            return Ok(());
        }
        let dependents = self.rng.per_mille(250);
        let store = &self.coordinator.store;
        let among = if dependents && !store.dependents.is_empty() {
            &store.dependents
        } else {
            &store.unfinished
        };
        if among.is_empty() {
            return Ok(());
        }
        let job = among.iter().nth(self.rng.index(among.len())).copied();
        let by_hand = self.rng.per_mille(500);
        let now = self.driver_now();
        let sessions = self.coordinator.sessions.clone();
        let (Some(job), Some(farm)) = (job, self.coordinator.farm.clone()) else {
            return Ok(());
        };
        let mut copy = WhatIf::new(farm, now, sessions, by_hand);
        let Some(said) = copy.explain(job) else {
            return Ok(());
        };
        if copy.is_behind() {
            // More came free at once than one step may serve.
            return Ok(());
        }
        nothing_is_free(job, &said)?;
        copy.suspend_all_but(job, &said)?;
        if self.cure_holds(&mut copy, job)?
            && let Some(said) = copy.explain(job)
        {
            let Some(builder) = self.rarest(&said) else {
                return Ok(());
            };
            self.cure_builder(&mut copy, job, &builder)?;
        }
        Ok(())
    }

    /// Says whether nothing holds the job any more.
    fn cure_holds(&mut self, copy: &mut WhatIf, job: JobId) -> Result<bool, Broken> {
        for _ in 0..CURES_MAX {
            let Some(held) = copy.explain(job).and_then(|said| said.held) else {
                return Ok(true);
            };
            let started = copy.started();
            copy.cure_hold(job, &held)?;
            let still = copy.explain(job).and_then(|said| said.held);
            if still.as_ref().map(hold_name) == Some(hold_name(&held)) {
                if copy.started() > started {
                    // A job that became ready by the same change took the place.
                    return Ok(false);
                }
                return untrue(job, &format!("{held:?}"), &format!("{still:?}"));
            }
            self.reasons.count(hold_name(&held));
        }
        broken("I9", format!("{job}: its holds never end"))
    }

    fn cure_builder(
        &mut self,
        copy: &mut WhatIf,
        job: JobId,
        builder: &Name,
    ) -> Result<(), Broken> {
        for _ in 0..CURES_MAX {
            let Some(said) = copy.explain(job) else {
                // It has started.
                return Ok(());
            };
            nothing_is_free(job, &said)?;
            if said.held.is_some() {
                // That is another reason, which the last cure led to.
                if self.cure_holds(copy, job)? {
                    continue;
                }
                return Ok(());
            }
            let Some(why) = why_of(&said, builder) else {
                return broken("I9", format!("{job}: {builder} is not there any more"));
            };
            let first = why[0].clone();
            copy.cure(job, builder, &first)?;
            if let Some(said) = copy.explain(job)
                && let Some(now) = why_of(&said, builder)
                && now.contains(&first)
            {
                return untrue(job, &format!("{builder}: {why:?}"), &format!("{now:?}"));
            }
            // What went together with the first reason has gone as well.
            let left = copy.explain(job);
            let left = left.as_ref().and_then(|said| why_of(said, builder));
            for gone in why.iter().filter(|why| !left.unwrap_or(&[]).contains(why)) {
                self.reasons.count(name_of(gone));
            }
        }
        broken("I9", format!("{job}: the reasons of {builder} never end"))
    }

    /// The builder whose first reason was tested least often by now.
    fn rarest(&self, said: &Explanation) -> Option<Name> {
        let rare = said.builders.iter().min_by_key(|(id, _, why)| {
            let tested = why
                .first()
                .map_or(u64::MAX, |why| self.reasons.get(name_of(why)));
            (tested, *id)
        });
        rare.map(|(_, name, _)| name.clone())
    }
}

fn why_of<'a>(said: &'a Explanation, builder: &Name) -> Option<&'a [Why]> {
    let mut builders = said.builders.iter();
    let (_, _, why) = builders.find(|(_, name, _)| name == builder)?;
    Some(why)
}

/// A job that nothing holds and a builder that nothing hinders do not wait for
/// each other.
fn nothing_is_free(job: JobId, said: &Explanation) -> Result<(), Broken> {
    let mut builders = said.builders.iter();
    let free = builders.find(|(_, _, why)| why.is_empty() || why.contains(&Why::Free));
    match free {
        Some((_, name, _)) if said.held.is_none() => broken(
            "I9",
            format!("job {job} waits while {name} is free: {}", said.summary),
        ),
        Some(_) | None => Ok(()),
    }
}

fn untrue<T>(job: JobId, said: &str, now: &str) -> Result<T, Broken> {
    broken(
        "I9",
        format!(
            "job {job}: what was named was changed, and it is no reason less: {said}, then {now}"
        ),
    )
}
