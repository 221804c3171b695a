//! Builders. Owns the three stored fields (link is derived from the session,
//! cleanliness, occupation) beside the operator's mode, and keeps the queue's
//! index of free builders true. Never decides which job goes where.
//!
//! ```text
//! dirty ─order─► resetting ─proof with the order's nonce─► clean ─assigned─► dirty
//!   ▲──failed, late, breach──┘
//! ```
//! Invariant: only a builder without any hindrance of placement's is free.

use std::collections::BTreeSet;

use farmbell_protocol::agent_to_coordinator::{Fitness, HelloBuilder};
use farmbell_protocol::bounded::Text;
use farmbell_protocol::id::{AgentId, BuilderId, BuilderIndex, JobId, Seq};

use crate::effect::{Link, Why};
use crate::farm::Farm;
use crate::ledger::About;
use crate::pace::Form;
use crate::placement::{Circumstances, Profile, hindrances};
use crate::queue::{ClassId, ProfileId};
use crate::record::{
    AgentStanding, BuilderOffer, BuilderRecord, Cleanliness, LedgerKind, Occupation, OperatorMode,
    ResetProof, ResetRule, ResetWhen,
};

#[derive(Clone, Debug)]
pub(crate) struct Builder {
    pub(crate) record: BuilderRecord,
    pub(crate) profile: ProfileId,
    /// Its place in the live session's Hello.
    pub(crate) index: Option<BuilderIndex>,
    /// It refused work moments ago and is left in peace.
    pub(crate) rests: bool,
    /// How it has done lately, against the others.
    pub(crate) form: Form,
    /// Jobs whose sealed outputs still lie in its agent's spool.
    pub(crate) uploads: BTreeSet<JobId>,
    /// Jobs that pass it over since it refused them.
    pub(crate) refused: BTreeSet<JobId>,
    /// Among those that are reset when a job wants them, as this.
    pub(crate) dormant: Option<ProfileId>,
    /// The class whose job it is being reset for, since it slept.
    pub(crate) woken_for: Option<ClassId>,
}

impl Builder {
    /// Whether its reset has to wait: it would take unsent outputs along.
    pub(crate) fn awaits_upload(&self) -> bool {
        !self.record.offer.spool_survives_reset && !self.uploads.is_empty()
    }

    /// Whether nothing but an operator starts its next reset.
    pub(crate) fn awaits_hand(&self) -> bool {
        self.record.reset_rule.when == ResetWhen::ByHand && !self.record.reset_proof.asked
    }

    pub(crate) fn is_held(&self) -> bool {
        matches!(self.record.occupation, Occupation::Held { .. })
    }
}

impl BuilderRecord {
    /// Nothing proves this builder clean any more: no proof that was taken, and
    /// none that may still come.
    pub fn soil(&mut self) {
        self.cleanliness = Cleanliness::Dirty;
        self.nonce = None;
    }
}

pub(crate) fn offer_of(hello: &HelloBuilder) -> BuilderOffer {
    BuilderOffer {
        recipes: hello.recipes.clone(),
        architectures: hello.architectures.clone(),
        open_tags: hello.open_tags.clone(),
        restricted_tags: hello.restricted_tags.clone(),
        virtualized: hello.virtualized,
        rung: hello.rung,
        memory_bytes: hello.memory_bytes,
        disk_bytes: hello.disk_bytes,
        reset_scope: hello.reset_scope,
        spool_survives_reset: hello.spool_survives_reset,
    }
}

impl Farm {
    /// A builder of this name that the agent has not offered before.
    pub(crate) fn add_builder(&mut self, agent: AgentId, hello: &HelloBuilder) -> BuilderId {
        self.meta.builder_floor += 1;
        self.step.meta = true;
        let id = BuilderId(self.meta.builder_floor);
        let record = BuilderRecord {
            id,
            agent,
            name: hello.name.clone(),
            offer: offer_of(hello),
            cleanliness: Cleanliness::Dirty,
            occupation: Occupation::Free,
            mode: OperatorMode::Enabled,
            mode_why: Text::default(),
            mode_by: Text::default(),
            mode_since: self.clock.wall(),
            drain_deadline: None,
            fitness: Fitness::Fit,
            fitness_why: Text::default(),
            strikes: 0,
            acked: Seq(0),
            nonce: None,
            reset_rule: ResetRule::default(),
            reset_proof: ResetProof::default(),
            reset_retry: None,
            trouble: None,
        };
        self.note(
            LedgerKind::BuilderAdded,
            About::builder(id).of(agent),
            format!("offered by its agent as '{}'", hello.name),
        );
        self.insert_builder(record);
        self.step.touch_builder(id);
        id
    }

    pub(crate) fn insert_builder(&mut self, record: BuilderRecord) {
        let profile = self.queue.intern_profile(Profile::from(&record.offer));
        let (id, agent) = (record.id, record.agent);
        if let Some(agent) = self.agents.get_mut(&agent) {
            agent.builders.insert(record.name.clone(), id);
        }
        self.builder_names.insert(record.name.clone(), id);
        self.builders.insert(
            id,
            Builder {
                record,
                profile,
                index: None,
                rests: false,
                form: Form::default(),
                uploads: BTreeSet::new(),
                refused: BTreeSet::new(),
                dormant: None,
                woken_for: None,
            },
        );
    }

    /// Takes over what the builder says of itself now.
    pub(crate) fn update_offer(&mut self, id: BuilderId, offer: BuilderOffer) {
        let profile = Profile::from(&offer);
        let Some(builder) = self.builders.get_mut(&id) else {
            return;
        };
        if builder.record.offer == offer {
            return;
        }
        let before = builder.profile;
        builder.record.offer = offer;
        self.queue.unset_free(id);
        builder.profile = self.queue.intern_profile(profile);
        self.queue.classes.release_profile(before);
        self.step.touch_builder(id);
    }

    pub(crate) fn link_of(&self, builder: &Builder) -> Link {
        let Some(agent) = self.agents.get(&builder.record.agent) else {
            return Link::Offline;
        };
        if agent.conn.is_some() && builder.index.is_some() {
            Link::Online
        } else if agent.record.lost_at.is_some() {
            Link::Unreachable
        } else {
            Link::Offline
        }
    }

    pub(crate) fn standing_of(&self, builder: &Builder) -> AgentStanding {
        self.agents
            .get(&builder.record.agent)
            .map_or(AgentStanding::Revoked, |agent| agent.record.standing)
    }

    /// What keeps this builder from taking work now.
    pub(crate) fn hindrances_of(&self, builder: &Builder) -> Vec<Why> {
        let standing = self.standing_of(builder);
        hindrances(
            builder,
            &Circumstances {
                link: self.link_of(builder),
                standing,
                suspect: self.meta.suspect.is_some(),
            },
        )
    }

    /// Makes the index of free builders true for this one. Says whether it has
    /// become free.
    pub(crate) fn index_builder(&mut self, id: BuilderId) -> bool {
        let Some(builder) = self.builders.get(&id) else {
            self.queue.unset_free(id);
            return false;
        };
        if !self.hindrances_of(builder).is_empty() {
            self.queue.unset_free(id);
            return false;
        }
        let was = self.queue.is_free(id);
        self.queue.set_free(id, builder.profile);
        !was
    }

    /// The attempt that held this builder does no more.
    pub(crate) fn free_builder(
        &mut self,
        id: BuilderId,
        attempt: farmbell_protocol::id::AttemptId,
    ) {
        let Some(builder) = self.builders.get_mut(&id) else {
            return;
        };
        if builder.record.occupation == (Occupation::Held { attempt }) {
            builder.record.occupation = Occupation::Free;
            self.step.touch_builder(id);
        }
    }

    /// Its next reset is another one, with a new challenge.
    pub(crate) fn soil(&mut self, id: BuilderId) {
        let Some(builder) = self.builders.get_mut(&id) else {
            return;
        };
        builder.record.soil();
        self.deadlines.disarm(crate::deadlines::Deadline::Reset(id));
        self.step.touch_builder(id);
    }

    /// Forgets a builder for good.
    pub(crate) fn drop_builder(&mut self, id: BuilderId) {
        self.drop_dormant(id);
        let Some(builder) = self.builders.remove(&id) else {
            return;
        };
        self.builder_names.remove(&builder.record.name);
        self.queue.unset_free(id);
        self.queue.classes.release_profile(builder.profile);
        for deadline in [
            crate::deadlines::Deadline::Reset(id),
            crate::deadlines::Deadline::ResetRetry(id),
            crate::deadlines::Deadline::Rest(id),
            crate::deadlines::Deadline::Drain(id),
        ] {
            self.deadlines.disarm(deadline);
        }
        if let Some(agent) = self.agents.get_mut(&builder.record.agent) {
            agent.builders.remove(&builder.record.name);
            agent.indexes.retain(|_, other| *other != id);
        }
        for job in builder.refused {
            self.stop_avoiding(job, id);
        }
        self.step
            .changes
            .push(crate::record::Change::BuilderRemoved(id));
    }
}
