//! What a job does when it runs: written into its spec by the submitter, read
//! by the simulated host. Owns both directions.

use std::time::Duration;

use farmbell_protocol::bounded::{List, Name, Text};
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::AttemptId;
use farmbell_protocol::outcome::{FailureKind, Outcome};
use farmbell_protocol::spec::{
    ArchScope, FileName, JobSpec, Limits, Network, Output, Parameter, Rung,
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
    (Manner::Poison, "poison", 10),
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
                why: Text::cut("baz (>= 1.0.1)"),
            },
            Manner::GiveBack => Outcome::GivenBack { why },
            Manner::BuilderProblem => Outcome::BuilderProblem { why },
        }
    }

    /// The spec that carries this script.
    pub(super) fn spec(self, rng: &mut Rng, number: usize) -> JobSpec {
        let name = MANNERS.iter().find(|(manner, _, _)| *manner == self.manner);
        let parameter = |key: &str, value: String| Parameter {
            key: Name::cut(key),
            value: Text::cut(value),
        };
        let tags = if rng.per_mille(150) {
            vec!["gpu"]
        } else {
            Vec::new()
        };
        JobSpec {
            name: Text::cut(format!("package-{number}")),
            version: Text::cut("1.0"),
            recipe: Name::cut("command"),
            parameters: list(vec![
                parameter("manner", name.map_or("", |(_, name, _)| *name).to_owned()),
                parameter("run", self.run.as_millis().to_string()),
                parameter("outputs", self.outputs.to_string()),
                parameter("log", self.log_bytes.to_string()),
            ]),
            architecture: Name::cut(ARCHITECTURES[rng.index(ARCHITECTURES.len())]),
            suite: Name::cut("bookworm"),
            archives: List::default(),
            arch_scope: ArchScope::All,
            build_profiles: List::default(),
            inputs: List::default(),
            outputs: List::default(),
            environment: List::default(),
            secrets: List::default(),
            network: Network::None,
            limits: Limits::default(),
            tags: list(tags.into_iter().map(Name::cut).collect()),
            rung: Rung::Process,
            virtualized: rng.per_mille(200),
            owner: Name::cut(OWNERS[rng.index(OWNERS.len())]),
            private: false,
            priority: i32::try_from(rng.below(100)).unwrap_or(0),
            retries: 0,
            notify: List::default(),
        }
    }
}

pub(super) const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
const OWNERS: [&str; 3] = ["ada", "grace", "kim"];

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
