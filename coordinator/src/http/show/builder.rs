//! Builders and agents in words.

use farmbell_farm::effect::{BuilderView as FarmView, Link, Overview};
use farmbell_farm::record::{
    AgentRecord, AgentStanding, BuilderRecord, Cleanliness, Occupation, OperatorMode,
};
use farmbell_protocol::agent_to_coordinator::{Fact, Fitness, ResetScope, fact};

use super::{envelope, strings};
use crate::http::lookup::Ordinal;
use crate::http::wire::{
    AgentView, BuilderView, Occupant, OverviewView, ResetView, SetBrake, Stamp,
};

pub(in crate::http) fn overview(overview: &Overview, sees_private: bool) -> OverviewView {
    let jobs = |jobs: &[farmbell_farm::record::JobRecord]| {
        jobs.iter()
            .filter(|job| sees_private || !job.private)
            .map(super::job)
            .collect()
    };
    OverviewView {
        epoch: overview.epoch.to_string(),
        suspect: overview.suspect,
        builders: overview.builders.iter().map(builder).collect(),
        queue: jobs(&overview.queue),
        waiting: overview.waiting,
        held: overview.held,
        brakes: brakes(overview),
        oldest_waiting_ms: overview.oldest_waiting_ms,
        running: jobs(&overview.running),
    }
}

pub(in crate::http) fn brakes(overview: &Overview) -> Vec<SetBrake> {
    let set = overview.brakes.iter().map(|brake| SetBrake {
        architecture: brake.architecture.as_ref().map(ToString::to_string),
        least: brake.least,
    });
    set.collect()
}

pub(in crate::http) fn builder(view: &FarmView) -> BuilderView {
    let record = &view.record;
    let offer = &record.offer;
    BuilderView {
        id: record.id.0,
        name: record.name.to_string(),
        agent: view.agent.to_string(),
        status: status(view),
        link: link_word(view.link).to_owned(),
        link_since: Stamp(view.link_since_ms),
        cleanliness: cleanliness_word(record.cleanliness).to_owned(),
        held: held(record.occupation),
        mode: mode_word(record.mode).to_owned(),
        mode_why: record.mode_why.to_string(),
        mode_by: record.mode_by.to_string(),
        mode_since: record.mode_since.into(),
        drain_ends: view.drain_ends.map(Into::into),
        fitness: fitness_word(record.fitness).to_owned(),
        fitness_why: record.fitness_why.to_string(),
        strikes: record.strikes,
        recipes: strings(&offer.recipes),
        architectures: strings(&offer.architectures),
        open_tags: strings(&offer.open_tags),
        restricted_tags: strings(&offer.restricted_tags),
        virtualized: offer.virtualized,
        rung: offer.rung.as_str().to_owned(),
        memory_bytes: offer.memory_bytes,
        disk_bytes: offer.disk_bytes,
        reset: reset(record),
        host_lacks: Vec::new(),
    }
}

/// The same with what its host lacks.
pub(in crate::http) fn builder_and_host(
    view: &FarmView,
    host: Option<&AgentRecord>,
) -> BuilderView {
    let facts = host.into_iter().flat_map(|host| host.facts.iter());
    BuilderView {
        host_lacks: facts
            .filter(|said| said.kind == fact::DEGRADED)
            .map(|said| String::from_utf8_lossy(&said.value).into_owned())
            .collect(),
        ..builder(view)
    }
}

/// What the builder does now: the one most telling word or two, and what
/// stands in the way of more work.
fn status(view: &FarmView) -> String {
    let record = &view.record;
    let doing = match (record.occupation, record.cleanliness) {
        (Occupation::Held { .. }, _) => "building",
        (Occupation::Free, Cleanliness::Dirty) => "dirty",
        (Occupation::Free, Cleanliness::Resetting { .. }) => "resetting",
        (Occupation::Free, Cleanliness::Probing { .. }) => "probing",
        (Occupation::Free, Cleanliness::Clean) => "idle",
    };
    let mut words = match view.link {
        Link::Online => vec![doing],
        Link::Unreachable => vec!["unreachable", doing],
        Link::Offline => match record.occupation {
            Occupation::Held { .. } => vec!["offline", doing],
            Occupation::Free => vec!["offline"],
        },
    };
    if record.mode != OperatorMode::Enabled {
        words.push(mode_word(record.mode));
    }
    if record.fitness != Fitness::Fit {
        words.push(fitness_word(record.fitness));
    }
    words.join(", ")
}

const fn link_word(link: Link) -> &'static str {
    match link {
        Link::Online => "online",
        Link::Unreachable => "unreachable",
        Link::Offline => "offline",
    }
}

const fn cleanliness_word(cleanliness: Cleanliness) -> &'static str {
    match cleanliness {
        Cleanliness::Dirty => "dirty",
        Cleanliness::Resetting { .. } => "resetting",
        Cleanliness::Probing { .. } => "probing",
        Cleanliness::Clean => "clean",
    }
}

const fn mode_word(mode: OperatorMode) -> &'static str {
    match mode {
        OperatorMode::Enabled => "enabled",
        OperatorMode::Manual => "manual",
        OperatorMode::Draining => "draining",
        OperatorMode::Quarantined => "quarantined",
        OperatorMode::Disabled => "disabled",
    }
}

const fn fitness_word(fitness: Fitness) -> &'static str {
    match fitness {
        Fitness::Fit => "fit",
        Fitness::Backlog => "backlog",
        Fitness::DiskLow => "disk low",
        Fitness::ReadOnly => "read-only",
        Fitness::Unkillable => "unkillable process",
        Fitness::Throttled => "throttled",
        Fitness::Draining => "agent is leaving",
    }
}

fn held(occupation: Occupation) -> Option<Occupant> {
    match occupation {
        Occupation::Free => None,
        Occupation::Held { attempt } => Some(Occupant {
            job: attempt.job.to_string(),
            attempt: Ordinal::of(attempt).to_string(),
        }),
    }
}

fn reset(record: &BuilderRecord) -> ResetView {
    let scope = match record.offer.reset_scope {
        ResetScope::Workspace => "workspace",
        ResetScope::Guest => "guest",
        ResetScope::Host => "host",
    };
    ResetView {
        scope: scope.to_owned(),
        spool_survives: record.offer.spool_survives_reset,
        when: record.reset_rule.when.as_str().to_owned(),
        reporter: record.reset_rule.reporter.as_ref().map(ToString::to_string),
        nonce: record.nonce.map(|nonce| nonce.to_string()),
        trouble: record.trouble.as_ref().map(ToString::to_string),
    }
}

pub(in crate::http) fn agent(record: &AgentRecord, connected: bool) -> AgentView {
    let standing = match record.standing {
        AgentStanding::Active => "active",
        AgentStanding::Frozen => "frozen",
        AgentStanding::Revoked => "revoked",
    };
    AgentView {
        id: record.id.0,
        name: record.name.to_string(),
        connected,
        standing: standing.to_owned(),
        standing_why: record.standing_why.to_string(),
        address: record.address.to_string(),
        software: record.software.to_string(),
        key: record.key.to_string(),
        joined: record.joined.into(),
        last_seen: record.last_seen.into(),
        envelope: envelope(&record.envelope),
        facts: record.facts.iter().filter_map(fact_line).collect(),
    }
}

/// Kinds that this version does not know are passed over.
fn fact_line(said: &Fact) -> Option<String> {
    const NAMES: [(u16, &str); 7] = [
        (fact::HOSTNAME, "hostname"),
        (fact::KERNEL, "kernel"),
        (fact::OS, "os"),
        (fact::CPUS, "cpus"),
        (fact::MEMORY_BYTES, "memory_bytes"),
        (fact::SPOOL_DURABILITY, "spool_durability"),
        (fact::DEGRADED, "degraded"),
    ];
    let (_, name) = NAMES.iter().find(|(kind, _)| *kind == said.kind)?;
    Some(format!("{name}: {}", String::from_utf8_lossy(&said.value)))
}
