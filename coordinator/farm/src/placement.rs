//! Placement. Owns the one rule of which builder may take which job: dispatch
//! builds its indexes from it, `--dry-run` and `explain` print what it says.
//! Never decides which of several goes first (queue.rs does).

use farmbell_protocol::agent_to_coordinator::Fitness;
use farmbell_protocol::bounded::{List, Name};
use farmbell_protocol::spec::{ANY_ARCHITECTURE, JobSpec, Rung};

use crate::builders::Builder;
use crate::effect::{Link, Why};
use crate::record::{AgentStanding, BuilderOffer, Cleanliness, Needs, Occupation, OperatorMode};

/// What placement looks at in a builder's offer: builders of one kind share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Profile {
    pub(crate) recipes: List<Name, 32>,
    pub(crate) architectures: List<Name, 16>,
    pub(crate) open_tags: List<Name, 32>,
    pub(crate) restricted_tags: List<Name, 32>,
    pub(crate) virtualized: bool,
    pub(crate) rung: Rung,
    pub(crate) memory_bytes: u64,
    pub(crate) disk_bytes: u64,
}

impl From<&BuilderOffer> for Profile {
    fn from(offer: &BuilderOffer) -> Self {
        Self {
            recipes: offer.recipes.clone(),
            architectures: offer.architectures.clone(),
            open_tags: offer.open_tags.clone(),
            restricted_tags: offer.restricted_tags.clone(),
            virtualized: offer.virtualized,
            rung: offer.rung,
            memory_bytes: offer.memory_bytes,
            disk_bytes: offer.disk_bytes,
        }
    }
}

/// What a job asks of a builder.
pub(crate) fn needs_of(spec: &JobSpec) -> Needs {
    Needs {
        recipe: spec.recipe.clone(),
        architecture: spec.architecture.clone(),
        virtualized: spec.virtualized,
        rung: spec.rung,
        tags: spec.tags.clone(),
        memory_bytes: spec.limits.memory_bytes,
        disk_bytes: spec.limits.disk_bytes,
    }
}

/// Why a builder of this kind could never take such a job; nothing if it could.
pub(crate) fn misfits(needs: &Needs, profile: &Profile) -> Vec<Why> {
    let mut why = Vec::new();
    let mut unless = |holds: bool, reason: Why| {
        if !holds {
            why.push(reason);
        }
    };
    let architecture_fits = needs.architecture.as_str() == ANY_ARCHITECTURE
        || profile.architectures.contains(&needs.architecture);
    unless(architecture_fits, Why::WrongArchitecture);
    unless(
        needs.virtualized == profile.virtualized,
        Why::WrongVirtualization,
    );
    unless(profile.recipes.contains(&needs.recipe), Why::NoRecipe);
    unless(profile.rung >= needs.rung, Why::RungTooLow);
    unless(
        profile.memory_bytes >= needs.memory_bytes,
        Why::TooLittleMemory,
    );
    unless(profile.disk_bytes >= needs.disk_bytes, Why::TooLittleDisk);
    for tag in needs.tags.iter() {
        let offered = profile.open_tags.contains(tag) || profile.restricted_tags.contains(tag);
        unless(offered, Why::LacksTag(tag.clone()));
    }
    for tag in profile.restricted_tags.iter() {
        unless(needs.tags.contains(tag), Why::RestrictedTag(tag.clone()));
    }
    why
}

/// What keeps a builder from taking any work at present.
pub(crate) struct Circumstances {
    pub(crate) link: Link,
    pub(crate) standing: AgentStanding,
    /// An operator has to accept a restored store first.
    pub(crate) suspect: bool,
}

/// Why a builder takes no work now; nothing if it would.
pub(crate) fn hindrances(builder: &Builder, circumstances: &Circumstances) -> Vec<Why> {
    let record = &builder.record;
    if circumstances.standing == AgentStanding::Revoked {
        return vec![Why::AgentRevoked];
    }
    let mut why = Vec::new();
    match circumstances.link {
        Link::Online => {}
        Link::Unreachable => why.push(Why::Unreachable),
        Link::Offline => why.push(Why::Offline),
    }
    if circumstances.standing == AgentStanding::Frozen {
        why.push(Why::AgentFrozen);
    }
    match record.mode {
        OperatorMode::Enabled => {}
        OperatorMode::Manual => why.push(Why::Manual),
        OperatorMode::Draining => why.push(Why::Draining),
        OperatorMode::Quarantined => why.push(Why::Quarantined),
        OperatorMode::Disabled => why.push(Why::Disabled),
    }
    if record.fitness != Fitness::Fit {
        why.push(Why::Unfit(record.fitness));
    }
    match record.occupation {
        Occupation::Held { attempt } => why.push(Why::Busy(attempt)),
        Occupation::Free => why.extend(uncleanliness(builder)),
    }
    if builder.rests {
        why.push(Why::Resting);
    }
    if circumstances.suspect {
        why.push(Why::FarmSuspect);
    }
    why
}

fn uncleanliness(builder: &Builder) -> Option<Why> {
    match builder.record.cleanliness {
        Cleanliness::Clean => None,
        Cleanliness::Resetting { .. } | Cleanliness::Probing { .. } => Some(Why::Resetting),
        Cleanliness::Dirty if builder.record.reset_retry.is_some() => Some(Why::ResetFailing),
        Cleanliness::Dirty if builder.awaits_upload() => Some(Why::AwaitsUpload),
        Cleanliness::Dirty if builder.awaits_hand() => Some(Why::AwaitsHand),
        Cleanliness::Dirty => Some(Why::Dirty),
    }
}
