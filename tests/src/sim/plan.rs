//! What a world is made of: its size, how long trouble lasts, how much of each
//! kind there is. A plan and a seed are a whole world.

use std::collections::BTreeMap;
use std::time::Duration;

use farmbell_farm::{Mutation, Settings, Share};
use farmbell_protocol::bounded::Name;

use super::script::OWNERS;

/// One world, apart from its seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// As the command line calls it.
    pub name: &'static str,
    /// Drawn for each seed, between these.
    pub agents: (usize, usize),
    pub builders_per_agent: usize,
    pub jobs: usize,
    /// Over which the submits are spread.
    pub submit_span: Duration,
    /// When trouble ends; from then on everything has to come to an end.
    pub trouble_until: Duration,
    /// Between two faults, on average.
    pub fault_every: Duration,
    /// Of the coordinator's own faults so many are kept: a farm of thousands
    /// has as many coordinators as a small one.
    pub coordinator_faults_per_mille: u64,
    /// Whether a job that loses its attempt draws trouble.
    pub hunts: bool,
    /// Between two acts of users and operators, on average.
    pub act_every: Duration,
    /// Runs are up to this long.
    pub run_max: Duration,
    pub settings: Settings,
    /// Everything is checked every so many batches.
    pub check_all_every: u64,
    /// Every so many commits a waiting job is asked why it waits, and whether
    /// that is true.
    pub what_if_every: u64,
    /// Worlds that make one run of this plan.
    pub worlds: u64,
    /// In such a run every kind of trouble strikes every state at least so
    /// often, and every reason is put to the test at least so often.
    pub struck_min: u64,
    pub reasons_min: u64,
    /// The protection that is taken away, if any.
    pub mutation: Option<Mutation>,
}

/// Deadlines shorter than an operator would set them, so that a world of an
/// hour sees all of them pass.
fn settings(running_max: u32) -> Settings {
    Settings {
        lost_after: Duration::from_secs(60),
        cancel_after: Duration::from_secs(45),
        reset_after: Duration::from_secs(90),
        upload_after: Duration::from_secs(120),
        accept_after: Duration::from_secs(30),
        shares: shares(running_max),
        ..Settings::default()
    }
}

/// One owner gets more than the others, one may not have much at once.
fn shares(running_max: u32) -> BTreeMap<Name, Share> {
    let limited = Share {
        weight: 1,
        running_max: Some(running_max),
        bonus: 0,
    };
    let favoured = Share {
        weight: 3,
        running_max: None,
        bonus: 0,
    };
    let [_, second, third] = OWNERS.map(Name::cut);
    BTreeMap::from([(second, favoured), (third, limited)])
}

impl Plan {
    /// A handful of builders under constant fire: most of what goes wrong
    /// between two parties shows here, fast.
    #[must_use]
    pub fn small() -> Self {
        Self {
            name: "small",
            agents: (1, 3),
            builders_per_agent: 2,
            jobs: 24,
            submit_span: Duration::from_secs(600),
            trouble_until: Duration::from_secs(1500),
            fault_every: Duration::from_secs(12),
            coordinator_faults_per_mille: 1000,
            hunts: false,
            act_every: Duration::from_secs(9),
            run_max: Duration::from_secs(90),
            settings: settings(2),
            check_all_every: 16,
            what_if_every: 61,
            worlds: 1_000,
            struck_min: 3,
            reasons_min: 10,
            mutation: None,
        }
    }

    /// One agent with more to do than it can, and an operator who interferes
    /// all the time: attempts of one job follow each other on one session.
    #[must_use]
    pub fn tight() -> Self {
        Self {
            name: "tight",
            agents: (1, 1),
            builders_per_agent: 4,
            jobs: 60,
            act_every: Duration::from_secs(3),
            fault_every: Duration::from_secs(30),
            worlds: 200,
            // Its one agent has everything and is hardly ever away.
            struck_min: 0,
            reasons_min: 0,
            ..Self::small()
        }
    }

    /// 500 builders, 5,000 jobs.
    #[must_use]
    pub fn large() -> Self {
        Self {
            name: "large",
            agents: (100, 100),
            builders_per_agent: 5,
            jobs: 5_000,
            submit_span: Duration::from_secs(900),
            trouble_until: Duration::from_secs(1800),
            fault_every: Duration::from_secs(2),
            coordinator_faults_per_mille: 500,
            hunts: false,
            act_every: Duration::from_secs(3),
            run_max: Duration::from_secs(180),
            settings: settings(100),
            check_all_every: 5_000,
            what_if_every: 5_009,
            worlds: 10,
            // Short states are struck often enough in small worlds only.
            struck_min: 0,
            reasons_min: 0,
            mutation: None,
        }
    }

    /// 10,000 builders, 100,000 jobs.
    #[must_use]
    pub fn farm() -> Self {
        Self {
            name: "farm",
            agents: (1_000, 1_000),
            builders_per_agent: 10,
            jobs: 100_000,
            submit_span: Duration::from_secs(1200),
            trouble_until: Duration::from_secs(2400),
            fault_every: Duration::from_millis(300),
            coordinator_faults_per_mille: 20,
            hunts: true,
            act_every: Duration::from_millis(400),
            run_max: Duration::from_secs(240),
            settings: settings(2_000),
            check_all_every: 100_000,
            what_if_every: 20_011,
            worlds: 3,
            struck_min: 1,
            reasons_min: 0,
            ..Self::large()
        }
    }

    #[must_use]
    pub fn with(mut self, mutation: Mutation) -> Self {
        self.mutation = Some(mutation);
        self
    }
}
