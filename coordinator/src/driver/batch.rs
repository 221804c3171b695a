//! What the farm asked for and nobody was told yet: changes to commit, and
//! effects that wait for them. Owns that their order is the farm's.

use farmbell_farm::effect::Effect;
use farmbell_farm::record::Change;

/// Events of one transaction at most. Larger groups commit no faster, and the
/// first reply of a group waits for the last event of it.
pub(super) const EVENTS_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Batch {
    events: usize,
    pub(super) changes: Vec<Change>,
    pub(super) effects: Vec<Effect>,
}

impl Batch {
    pub(super) fn add(&mut self, effects: Vec<Effect>) {
        self.events += 1;
        for effect in effects {
            match effect {
                Effect::Change(change) => self.changes.push(change),
                effect @ (Effect::Reply { .. }
                | Effect::Send { .. }
                | Effect::Offer { .. }
                | Effect::Welcome { .. }
                | Effect::Close { .. }
                | Effect::Admit { .. }
                | Effect::Dismiss { .. }
                | Effect::Expect { .. }
                | Effect::Look(_)
                | Effect::Search { .. }
                | Effect::Prune) => self.effects.push(effect),
            }
        }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.events >= EVENTS_MAX
    }

    pub(super) const fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.effects.is_empty()
    }
}
