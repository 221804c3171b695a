//! What simulated builders have. Owns the spread of offers over agents.

use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::ResetScope;
use farmbell_protocol::bounded::Name;
use farmbell_protocol::builder::Settings;
use farmbell_protocol::spec::Rung;

use super::rng::Rng;
use super::script::{ARCHITECTURES, MUCH, RECIPES, RESTRICTED, list};

/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(10);

/// What the builder at this place of an agent has. Agent 0 has everything, so
/// that every job can end; the others have some of it.
pub(super) fn offer(rng: &mut Rng, number: usize, place: usize) -> Settings {
    let mut has = |chance: u64| number == 0 || rng.per_mille(chance);
    let both = has(300);
    let mut open_tags = Vec::new();
    let mut restricted_tags = Vec::new();
    if has(500) {
        open_tags.push(Name::cut("gpu"));
    }
    if number == 0 {
        open_tags.push(Name::cut(RESTRICTED));
    } else if has(200) {
        restricted_tags.push(Name::cut(RESTRICTED));
    }
    let recipes = if has(500) {
        &RECIPES[..]
    } else {
        &RECIPES[..1]
    };
    let rung = if has(400) {
        Rung::Chroot
    } else {
        Rung::Process
    };
    let memory_bytes = if has(400) { MUCH } else { 1 << 30 };
    let disk_bytes = if has(400) { MUCH } else { 1 << 30 };
    Settings {
        name: Name::cut(format!("b{number}-{place}")),
        recipes: list(recipes.iter().map(|recipe| Name::cut(*recipe)).collect()),
        architectures: list(if both {
            ARCHITECTURES.iter().map(|a| Name::cut(*a)).collect()
        } else {
            vec![Name::cut(ARCHITECTURES[rng.index(2)])]
        }),
        open_tags: list(open_tags),
        restricted_tags: list(restricted_tags),
        virtualized: place == 1 || (place > 1 && rng.per_mille(300)),
        rung,
        memory_bytes,
        disk_bytes,
        reset_scope: ResetScope::Workspace,
        spool_survives_reset: rng.per_mille(700),
        backlog_max: 3,
        grace: GRACE,
    }
}
