//! Stories of one builder, told through `handle`.

mod orders;
mod resets;
mod restarts;

use std::time::Duration;

use super::*;
use crate::agent_to_coordinator::{AgentFrame, ResetScope};
use crate::bounded::{List, Name};
use crate::digest::Digest;
use crate::id::JobId;
use crate::outcome::{Outcome, Usage};
use crate::spec::{ArchScope, JobSpec, Limits, Network, Rung};

const BOOT: BootId = BootId([1; 16]);
const OTHER_BOOT: BootId = BootId([2; 16]);

fn same_boot() -> HostView {
    HostView {
        boot: BOOT,
        survivors: Vec::new(),
    }
}

/// A builder with its driver: what it asked for, and what its spool holds.
struct Bench {
    builder: Builder,
    spool: Vec<Record>,
    asked: Vec<Effect>,
    said: Vec<AgentFrame>,
}

pub(super) fn settings() -> Settings {
    Settings {
        name: Name::cut("b1"),
        recipes: one("command"),
        architectures: one("amd64"),
        open_tags: List::default(),
        restricted_tags: List::default(),
        virtualized: false,
        rung: Rung::Process,
        memory_bytes: 0,
        disk_bytes: 0,
        reset_scope: ResetScope::Workspace,
        spool_survives_reset: true,
        backlog_max: 2,
        grace: Duration::from_secs(10),
    }
}

fn spec() -> JobSpec {
    JobSpec {
        name: Text::cut("hello"),
        version: Text::default(),
        recipe: Name::cut("command"),
        parameters: List::default(),
        architecture: Name::cut("amd64"),
        suite: Name::default(),
        archives: List::default(),
        arch_scope: ArchScope::All,
        build_profiles: List::default(),
        inputs: List::default(),
        outputs: List::default(),
        environment: List::default(),
        secrets: List::default(),
        network: Network::None,
        limits: Limits::default(),
        tags: List::default(),
        rung: Rung::Process,
        virtualized: false,
        owner: Name::default(),
        private: false,
        priority: 0,
        retries: 0,
        notify: List::default(),
    }
}

fn id(job: u64) -> AttemptId {
    AttemptId {
        job: JobId(job),
        generation: 1,
        number: 1,
        nonce: 77,
    }
}

fn succeeded() -> EndReport {
    EndReport {
        outcome: Outcome::Succeeded,
        exit: None,
        usage: Usage::default(),
    }
}

fn seal() -> SealReport {
    SealReport {
        manifest: Digest::of(b"m"),
        manifest_bytes: 1,
        outputs: 1,
        output_bytes: 9,
        log_bytes: 5,
        outcome: None,
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: Settings) -> Self {
        let mut bench = Self {
            builder: Builder::new(settings),
            spool: vec![Record::Booted { boot: BOOT }],
            asked: Vec::new(),
            said: Vec::new(),
        };
        bench.link(0, &[]);
        bench
    }

    /// Linked and proved clean in answer to `nonce`.
    fn clean(nonce: u64) -> Self {
        let mut bench = Self::new();
        bench.make_clean(nonce);
        bench
    }

    fn make_clean(&mut self, nonce: u64) {
        let nonce = CleanNonce(nonce);
        self.tell(Event::ResetOrdered { nonce });
        self.tell(Event::ResetEnded {
            nonce,
            report: ResetReport::Clean {
                reset: Duration::ZERO,
                probe: Duration::ZERO,
            },
        });
    }

    fn tell(&mut self, event: Event) {
        let effects = self.builder.handle(Time::ZERO, event);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        self.asked.clear();
        self.said.clear();
        for effect in effects {
            match effect {
                Effect::Spool(record) => self.spool.push(record),
                Effect::Say(frame) => self.said.push(frame),
                asked @ (Effect::Start { .. }
                | Effect::Stop { .. }
                | Effect::Seal { .. }
                | Effect::Upload { .. }
                | Effect::Release { .. }
                | Effect::Reset { .. }
                | Effect::Probe { .. }) => self.asked.push(asked),
            }
        }
    }

    fn link(&mut self, acked: u64, standings: &[(AttemptId, Standing)]) {
        self.tell(Event::Linked {
            index: BuilderIndex(0),
            acked: Seq(acked),
            standings: standings.to_vec(),
        });
    }

    fn offer(&mut self, attempt: AttemptId) {
        self.tell(Event::Offer {
            attempt,
            spec: Box::new(spec()),
        });
    }

    fn ack(&mut self, attempt: AttemptId, seq: u64) {
        self.tell(Event::Acked {
            attempt,
            seq: Seq(seq),
        });
    }

    fn end(&mut self, attempt: AttemptId) {
        self.tell(Event::Ended {
            attempt,
            report: succeeded(),
        });
    }

    fn seal(&mut self, attempt: AttemptId) {
        self.tell(Event::Sealed {
            attempt,
            report: seal(),
        });
    }

    /// From the offer to the sealed outputs.
    fn build(&mut self, attempt: AttemptId) {
        self.offer(attempt);
        self.tell(Event::Started { attempt });
        self.end(attempt);
        self.seal(attempt);
    }

    /// The agent dies and comes back.
    fn restart(&mut self, host: &HostView) {
        let (builder, effects) = Builder::restore(settings(), self.spool.clone(), host, Time::ZERO);
        self.builder = builder;
        self.perform(effects);
    }

    /// The reports of an attempt said by the last call: `(seq, word)`.
    fn words(&self) -> Vec<(u64, &'static str)> {
        self.said.iter().map(word).collect()
    }
}

fn word(frame: &AgentFrame) -> (u64, &'static str) {
    match frame {
        AgentFrame::Accepted(f) => (f.seq.0, "accepted"),
        AgentFrame::Refused(f) => (f.seq.0, f.refusal.as_str()),
        AgentFrame::Started(f) => (f.seq.0, "started"),
        AgentFrame::Ended(f) => (
            f.seq.0,
            match f.outcome {
                Outcome::Succeeded => "ended",
                Outcome::Aborted => "ended:aborted",
                Outcome::SupervisorLost { .. } => "ended:lost",
                Outcome::Failed { .. }
                | Outcome::BuilderProblem { .. }
                | Outcome::GivenBack { .. } => "ended:other",
            },
        ),
        AgentFrame::Sealed(f) => (f.seq.0, "sealed"),
        AgentFrame::OutputsLost(f) => (f.seq.0, "outputs-lost"),
        AgentFrame::ResetStarted(f) => (f.seq.0, "reset-started"),
        AgentFrame::ResetFailed(f) => (f.seq.0, "reset-failed"),
        AgentFrame::Clean(f) => (f.seq.0, "clean"),
        AgentFrame::Condition(f) => (
            f.seq.0,
            match f.fitness {
                Fitness::Fit => "fit",
                Fitness::Backlog => "backlog",
                Fitness::Unkillable => "unkillable",
                Fitness::Draining => "draining",
                Fitness::DiskLow | Fitness::ReadOnly | Fitness::Throttled => "unfit",
            },
        ),
        AgentFrame::Join(_)
        | AgentFrame::Hello(_)
        | AgentFrame::HelloBuilder(_)
        | AgentFrame::HelloAttempt(_)
        | AgentFrame::HelloEnd(_) => unreachable!("a builder opens no session"),
    }
}

fn one<const MAX: usize>(name: &str) -> List<Name, MAX> {
    List::new(vec![Name::cut(name)]).unwrap()
}
