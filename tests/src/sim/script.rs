//! What a job does when it runs: written into its spec by the submitter, read
//! by the simulated host. Owns both directions.

use std::time::Duration;

use farmbell_farm::event::PackageKey;
use farmbell_protocol::bounded::{List, Name, Text};
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::AttemptId;
use farmbell_protocol::outcome::{FailureKind, Outcome};
use farmbell_protocol::spec::{
    ANY_ARCHITECTURE, ArchScope, FileName, JobSpec, Limits, Network, Output, Parameter, Rung,
};

use super::plan::Plan;
use super::rng::Rng;

/// How a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Succeed,
    Fail,
    DependencyWait,
    GiveBack,
    BuilderProblem,
    /// An input cannot be had: it never starts.
    Unstartable,
    /// It takes the host down with it.
    Poison,
    /// Gathering finds a hostile file name.
    Hostile,
    /// Sealed outputs turn out unreadable.
    LoseOutputs,
    /// It does not die when killed.
    Unkillable,
}

const MANNERS: [(Manner, &str, u64); 10] = [
    (Manner::Succeed, "succeed", 700),
    (Manner::Fail, "fail", 100),
    (Manner::DependencyWait, "dependency-wait", 20),
    (Manner::GiveBack, "give-back", 40),
    (Manner::BuilderProblem, "builder-problem", 40),
    (Manner::Unstartable, "unstartable", 20),
    (Manner::Poison, "poison", 20),
    (Manner::Hostile, "hostile", 20),
    (Manner::LoseOutputs, "lose-outputs", 20),
    (Manner::Unkillable, "unkillable", 30),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) manner: Manner,
    pub(super) run: Duration,
    pub(super) outputs: u32,
    pub(super) log_bytes: u64,
}

impl Script {
    pub(super) fn chosen(rng: &mut Rng, plan: &Plan) -> Self {
        let mut point = rng.below(MANNERS.iter().map(|(_, _, weight)| weight).sum());
        let mut manner = Manner::Succeed;
        for (candidate, _, weight) in MANNERS {
            if point < weight {
                manner = candidate;
                break;
            }
            point -= weight;
        }
        let longest = u64::try_from(plan.run_max.as_millis()).unwrap_or(u64::MAX);
        let quick = rng.per_mille(300);
        Self {
            manner,
            run: rng.millis(1, if quick { 50 } else { longest }),
            outputs: u32::try_from(rng.below(4)).unwrap_or(0),
            log_bytes: rng.below(100_000),
        }
    }

    pub(super) fn of(spec: &JobSpec) -> Self {
        let value = |key: &str| {
            let found = spec.parameters.iter().find(|p| p.key == *key);
            found.map_or("", |p| p.value.as_str())
        };
        let number = |key: &str| value(key).parse::<u64>().unwrap_or(0);
        let manner = MANNERS.iter().find(|(_, name, _)| *name == value("manner"));
        Self {
            manner: manner.map_or(Manner::Succeed, |(manner, _, _)| *manner),
            run: Duration::from_millis(number("run")),
            outputs: u32::try_from(number("outputs")).unwrap_or(0),
            log_bytes: number("log"),
        }
    }

    pub(super) fn outcome(self) -> Outcome {
        let why = Text::cut("scripted");
        match self.manner {
            Manner::Succeed
            | Manner::Hostile
            | Manner::LoseOutputs
            | Manner::Unkillable
            | Manner::Unstartable
            | Manner::Poison => Outcome::Succeeded,
            Manner::Fail => Outcome::Failed {
                kind: FailureKind::Build,
                why,
            },
            Manner::DependencyWait => Outcome::Failed {
                kind: FailureKind::DependencyWait,
                why: Text::cut(WANTED),
            },
            Manner::GiveBack => Outcome::GivenBack { why },
            Manner::BuilderProblem => Outcome::BuilderProblem { why },
        }
    }

    /// The spec that carries this script. Agent 0 can run whatever it asks for.
    pub(super) fn spec(self, rng: &mut Rng, number: usize) -> JobSpec {
        let name = MANNERS.iter().find(|(manner, _, _)| *manner == self.manner);
        let parameter = |key: &str, value: String| Parameter {
            key: Name::cut(key),
            value: Text::cut(value),
        };
        let mut tags = Vec::new();
        if rng.per_mille(150) {
            tags.push("gpu");
        }
        if rng.per_mille(50) {
            tags.push(RESTRICTED);
        }
        let mut often = |chance: u64, rare: u64| if rng.per_mille(chance) { rare } else { 0 };
        let limits = Limits {
            memory_bytes: often(100, MUCH),
            disk_bytes: often(100, MUCH),
            ..Limits::default()
        };
        JobSpec {
            name: Text::cut(format!("package-{number}")),
            version: Text::cut("1.0"),
            recipe: Name::cut(RECIPES[usize::from(rng.per_mille(100))]),
            parameters: list(vec![
                parameter("manner", name.map_or("", |(_, name, _)| *name).to_owned()),
                parameter("run", self.run.as_millis().to_string()),
                parameter("outputs", self.outputs.to_string()),
                parameter("log", self.log_bytes.to_string()),
            ]),
            architecture: Name::cut(if rng.per_mille(50) {
                ANY_ARCHITECTURE
            } else {
                ARCHITECTURES[rng.index(ARCHITECTURES.len())]
            }),
            suite: Name::cut(SUITE),
            archives: List::default(),
            arch_scope: ArchScope::All,
            build_profiles: List::default(),
            inputs: List::default(),
            outputs: List::default(),
            environment: List::default(),
            secrets: List::default(),
            network: Network::None,
            limits,
            tags: list(tags.into_iter().map(Name::cut).collect()),
            rung: if rng.per_mille(100) {
                Rung::Sandbox
            } else {
                Rung::Process
            },
            virtualized: rng.per_mille(200),
            owner: Name::cut(OWNERS[rng.index(OWNERS.len())]),
            private: rng.per_mille(50),
            priority: i32::try_from(rng.below(100)).unwrap_or(0),
            retries: if rng.per_mille(100) {
                u8::try_from(rng.below(6)).unwrap_or(0)
            } else {
                0
            },
            notify: List::default(),
        }
    }
}

pub(super) const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
pub(super) const RECIPES: [&str; 2] = ["command", "kiwi"];
const SUITE: &str = "bookworm";
/// What a job that waits for a dependency says is missing, and what would do.
const WANTED: &str = "baz (>= 1.0.1)";
pub(super) const WANTED_VERSION: &str = "1.0.2-1";
/// The tag that some builders keep to the jobs that ask for it.
pub(super) const RESTRICTED: &str = "secure";
/// More memory and disk than most hosts have.
pub(super) const MUCH: u64 = 4 << 30;
pub(super) const OWNERS: [&str; 3] = ["ada", "grace", "kim"];

/// The package that such a job of this architecture waits for.
pub(super) fn wanted_package(architecture: &Name) -> PackageKey {
    let architecture = if architecture.as_str() == ANY_ARCHITECTURE {
        Name::cut(ARCHITECTURES[0])
    } else {
        architecture.clone()
    };
    PackageKey {
        name: Text::cut("baz"),
        architecture,
        suite: Name::cut(SUITE),
        owner: None,
    }
}

/// What an attempt's outputs are: a function of its fence, so that another
/// attempt's can never pass for them.
pub(super) fn outputs(attempt: AttemptId, count: u32) -> Vec<Output> {
    (0..count)
        .map(|number| {
            let content = format!("{attempt}/{}/{number}", attempt.nonce);
            Output {
                name: FileName::new(format!("output-{number}")).expect("a plain name"),
                digest: Digest::of(content.as_bytes()),
                length: content.len() as u64,
                executable: false,
            }
        })
        .collect()
}

pub(super) fn list<T, const MAX: usize>(items: Vec<T>) -> List<T, MAX> {
    List::new(items).expect("a handful fits every list")
}
