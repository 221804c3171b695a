//! Stories about the farm: each a sentence. Owns the one helper that knows how
//! to speak to it: a world with a store that keeps what was committed, and
//! hosts that say what agents say.

mod blame;
mod books;
mod cancels;
mod dependencies;
mod forecasts;
mod life;
mod loss;
mod operators;
mod outages;
mod pace;
mod reasons;
mod reset_rules;
mod resets;
mod restores;
mod retire;
mod retries;
mod scheduling;
mod sessions;
mod store;
mod submits;
mod sweeps;
mod tokens;
mod uploads;
mod welcomes;

use std::collections::BTreeMap;
use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::{
    Accepted, AgentFrame, AttemptPhase, Clean, Ended, Hello, HelloAttempt, HelloBuilder, Join,
    ResetFailed, ResetScope, ResetStage, ScriptFailure, Sealed, Started,
};
use farmbell_protocol::bounded::{Blob, List, Name, Reason, Text};
use farmbell_protocol::coordinator_to_agent::{CoordinatorFrame, Standing};
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::{
    AttemptId, BootId, BuilderIndex, CleanNonce, Epoch, JobId, KeyHash, Seq, SpoolId, SubmissionId,
};
use farmbell_protocol::outcome::{ExitStatus, FailureKind, Outcome, Usage, Verdict};
use farmbell_protocol::spec::{JobSpec, Limits as JobLimits, Network, Rung};
use farmbell_protocol::time::{Now, Time, Wall};
use farmbell_protocol::version::{CloseCode, Features};

use crate::effect::{Effect, Refused, Reply};
use crate::event::{Actor, Command, ConnId, Event, RequestId, Submit};
use crate::record::{
    AgentRecord, AttemptRecord, BuilderRecord, Change, Envelope, JobRecord, JobState, LedgerEntry,
    LedgerKind, Meta, Snapshot, SubmissionRecord, TokenRecord,
};
use crate::{Farm, Settings};

pub(crate) use store::Store;

const SECRET: [u8; 16] = [7; 16];

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn spec(text: &str) -> JobSpec {
    JobSpec {
        name: Text::new(text).unwrap(),
        version: Text::default(),
        recipe: name("command"),
        parameters: List::default(),
        architecture: name("amd64"),
        suite: Name::default(),
        archives: List::default(),
        arch_scope: farmbell_protocol::spec::ArchScope::All,
        build_profiles: List::default(),
        inputs: List::default(),
        outputs: List::default(),
        environment: List::default(),
        secrets: List::default(),
        network: Network::None,
        limits: JobLimits::default(),
        tags: List::default(),
        rung: Rung::Process,
        virtualized: false,
        owner: name("kim"),
        private: false,
        priority: 0,
        retries: 0,
        notify: List::default(),
    }
}

/// One agent's machine, as a test moves it.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) key: KeyHash,
    pub(crate) conn: ConnId,
    pub(crate) hello: Hello,
    pub(crate) builders: Vec<HelloBuilder>,
    pub(crate) held: Vec<HelloAttempt>,
    pub(crate) address: Text<64>,
    pub(crate) seqs: BTreeMap<AttemptId, u64>,
}

pub(crate) struct World {
    pub(crate) farm: Farm,
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) now: Time,
    pub(crate) said: Vec<Effect>,
    starts: u8,
    conns: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let now = Time(1_000_000);
        let (farm, effects) =
            Farm::restore(settings.clone(), Snapshot::default(), [], at(now), [1; 32]);
        let mut world = Self {
            farm,
            settings,
            store: Store::default(),
            now,
            said: Vec::new(),
            starts: 1,
            conns: 0,
        };
        world.perform(effects);
        world
    }

    /// The coordinator dies and starts again from its store.
    pub(crate) fn restart(&mut self) {
        self.restart_from(self.store.snapshot());
    }

    pub(crate) fn restart_from(&mut self, (snapshot, jobs): (Snapshot, Vec<JobRecord>)) {
        self.starts += 1;
        let floor = snapshot.meta.as_ref().map_or(0, |meta| meta.ledger_floor);
        self.store.ledger.retain(|entry| entry.seq <= floor);
        let (farm, effects) = Farm::restore(
            self.settings.clone(),
            snapshot,
            jobs,
            at(self.now),
            [self.starts; 32],
        );
        self.farm = farm;
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        self.said.clear();
        let mut changes_over = false;
        for effect in effects {
            match effect {
                Effect::Change(change) => {
                    assert!(!changes_over, "changes come before all else");
                    self.store.commit(change);
                }
                other => {
                    changes_over = true;
                    self.said.push(other);
                }
            }
        }
        self.farm.check_all().unwrap();
        self.check_stored();
    }

    /// Whatever the farm knows is in the store, or a crash would forget it.
    /// Not after a restart, which gives deadlines grace; and stories of many
    /// jobs would spend their time here.
    fn check_stored(&self) {
        if self.starts > 1 || self.farm.jobs.len() > 100 {
            return;
        }
        for (id, job) in &self.farm.jobs {
            let record = job.record(*id, &self.farm.queue, job.stored_state());
            assert_eq!(self.store.jobs.get(id), Some(&record));
        }
        for (id, builder) in &self.farm.builders {
            assert_eq!(self.store.builders.get(&id.0), Some(&builder.record));
        }
        for (id, agent) in &self.farm.agents {
            assert_eq!(self.store.agents.get(&id.0), Some(&agent.record));
        }
        assert_eq!(self.store.builders.len(), self.farm.builders.len());
        assert_eq!(self.store.agents.len(), self.farm.agents.len());
        assert_eq!(self.store.tokens, self.farm.tokens);
        assert_eq!(self.store.bulk, self.farm.bulk);
    }

    pub(crate) fn handle(&mut self, event: Event) {
        let effects = self.farm.handle(at(self.now), event);
        self.perform(effects);
    }

    /// Time passes; whatever is due by then happens when it is due.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        let mut at_once = 0;
        while let Some(due) = self.farm.next_deadline().filter(|due| *due <= end) {
            at_once = if due > self.now { 0 } else { at_once + 1 };
            assert!(at_once < 100, "it is woken for ever and time stands still");
            self.now = self.now.max(due);
            self.handle(Event::Wake);
        }
        self.now = end;
    }

    pub(crate) fn ask(&mut self, command: Command) -> Result<Reply, Refused> {
        self.handle(Event::Request {
            request: RequestId(1),
            by: Actor {
                name: Text::new("root").unwrap(),
            },
            command,
        });
        let reply = self.said.iter().find_map(|effect| match effect {
            Effect::Reply { reply, .. } => Some((**reply).clone()),
            _ => None,
        });
        match reply.expect("every request is answered") {
            Reply::Refused(refused) => Err(refused),
            reply => Ok(reply),
        }
    }

    pub(crate) fn submit(&mut self, spec: JobSpec) -> JobId {
        match self.ask(Command::Submit(Submit {
            key: None,
            jobs: List::new(vec![spec]).unwrap(),
            allow_unmatched: true,
        })) {
            Ok(Reply::Submitted { jobs, .. }) => jobs[0],
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn cancel(&mut self, job: JobId) -> Result<Reply, Refused> {
        self.ask(Command::Cancel {
            job,
            why: Text::new("not wanted").unwrap(),
        })
    }

    pub(crate) fn conn(&mut self) -> ConnId {
        self.conns += 1;
        ConnId(self.conns)
    }

    pub(crate) fn token(&mut self, uses: u32, envelope: Envelope) -> u64 {
        match self.ask(Command::TokenCreate {
            uses,
            ttl_ms: 3_600_000,
            envelope,
            secret_hash: Digest::of(&SECRET).0,
        }) {
            Ok(Reply::Token(token)) => token.id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn join(&mut self, token: u64, number: u8, secret: [u8; 16]) -> CloseCode {
        let conn = self.conn();
        self.handle(Event::Join {
            conn,
            key: KeyHash([number; 32]),
            address: Text::new(format!("10.0.0.{number}")).unwrap(),
            join: Join {
                token,
                secret,
                name: name(&format!("host{number}")),
                software: name("farmbell-agent 0.1"),
            },
        });
        self.close_code()
            .expect("a join always ends its connection")
    }

    /// A joined agent with one builder that has never been connected.
    pub(crate) fn host(&mut self, number: u8) -> Host {
        let token = self.token(1, Envelope::default());
        assert_eq!(self.join(token, number, SECRET), CloseCode::Done);
        Host {
            key: KeyHash([number; 32]),
            conn: ConnId(0),
            address: Text::new(format!("10.0.0.{number}")).unwrap(),
            hello: Hello {
                version_min: 1,
                version_max: 1,
                features: Features::ALL,
                software: name("farmbell-agent 0.1"),
                boot: BootId([number; 16]),
                incarnation: 1,
                spool: SpoolId([number; 16]),
                epoch: Epoch::default(),
                previous_session: None,
                builders: 1,
                attempts: 0,
                facts: List::default(),
            },
            builders: vec![builder(&format!("b{number}"))],
            held: Vec::new(),
            seqs: BTreeMap::new(),
        }
    }

    /// Says Hello on a new connection; the old one is left as it is.
    pub(crate) fn hello(&mut self, host: &mut Host) -> Option<CloseCode> {
        host.conn = self.conn();
        host.hello.builders = u16::try_from(host.builders.len()).unwrap();
        host.hello.attempts = u16::try_from(host.held.len()).unwrap();
        self.handle(Event::Hello {
            conn: host.conn,
            key: host.key,
            address: host.address.clone(),
            hello: Box::new(host.hello.clone()),
            builders: host.builders.clone(),
            attempts: host.held.clone(),
        });
        let welcome = self.said.iter().find_map(|effect| match effect {
            Effect::Welcome {
                session,
                epoch,
                builders,
                ..
            } => Some((*session, *epoch, builders.clone())),
            _ => None,
        });
        if let Some((session, epoch, builders)) = welcome {
            host.hello.previous_session = Some(session);
            host.hello.epoch = epoch;
            for builder in builders {
                host.builders[usize::from(builder.index.0)].last_seq = builder.acked;
            }
        }
        self.said.iter().find_map(|effect| match effect {
            Effect::Close { conn, code, .. } if *conn == host.conn => Some(*code),
            _ => None,
        })
    }

    /// A connected builder, proved clean.
    pub(crate) fn ready(&mut self, number: u8) -> Host {
        let mut host = self.host(number);
        assert_eq!(self.hello(&mut host), None);
        self.clean(&mut host);
        host
    }

    pub(crate) fn report(&mut self, host: &Host, frame: AgentFrame) {
        self.handle(Event::Report {
            conn: host.conn,
            frame,
        });
    }

    pub(crate) fn reset_order(&self) -> Option<CleanNonce> {
        self.said.iter().find_map(|effect| match effect {
            Effect::Send {
                frame: CoordinatorFrame::Reset(reset),
                ..
            } => Some(reset.nonce),
            _ => None,
        })
    }

    /// Answers the reset order that was given just now.
    pub(crate) fn clean(&mut self, host: &mut Host) {
        let nonce = self.reset_order().expect("a reset was ordered");
        self.prove(host, nonce);
    }

    pub(crate) fn clean_if_ordered(&mut self, host: &mut Host) {
        if self.reset_order().is_some() {
            self.clean(host);
        }
    }

    pub(crate) fn prove(&mut self, host: &mut Host, nonce: CleanNonce) {
        let seq = host.builders[0].last_seq.next();
        host.builders[0].last_seq = seq;
        self.report(
            host,
            AgentFrame::Clean(Clean {
                builder: BuilderIndex(0),
                seq,
                nonce,
                reset_ms: 1,
                probe_ms: 1,
            }),
        );
    }

    pub(crate) fn fail_reset(&mut self, host: &mut Host, nonce: CleanNonce) {
        let seq = host.builders[0].last_seq.next();
        host.builders[0].last_seq = seq;
        self.report(
            host,
            AgentFrame::ResetFailed(ResetFailed {
                builder: BuilderIndex(0),
                seq,
                nonce,
                stage: ResetStage::Reset,
                failure: ScriptFailure::Exit(ExitStatus::Code(1)),
                stdout: Blob::tail(b"out"),
                stderr: Blob::tail(b"err"),
            }),
        );
    }

    pub(crate) fn offers(&self) -> Vec<(ConnId, AttemptId)> {
        self.said
            .iter()
            .filter_map(|effect| match effect {
                Effect::Offer { conn, attempt, .. } => Some((*conn, *attempt)),
                _ => None,
            })
            .collect()
    }

    /// The one attempt offered to this host just now.
    pub(crate) fn offered(&self, host: &Host) -> AttemptId {
        let offers = self.offers();
        let (_, attempt) = offers
            .iter()
            .find(|(conn, _)| *conn == host.conn)
            .expect("an offer was made to this host");
        *attempt
    }

    pub(crate) fn next_seq(host: &mut Host, attempt: AttemptId) -> Seq {
        let seq = host.seqs.entry(attempt).or_default();
        *seq += 1;
        Seq(*seq)
    }

    pub(crate) fn accept(&mut self, host: &mut Host, attempt: AttemptId) {
        let seq = Self::next_seq(host, attempt);
        self.report(host, AgentFrame::Accepted(Accepted { attempt, seq }));
        self.hold(host, attempt, AttemptPhase::Accepted);
    }

    pub(crate) fn start(&mut self, host: &mut Host, attempt: AttemptId) {
        let seq = Self::next_seq(host, attempt);
        self.report(host, AgentFrame::Started(Started { attempt, seq }));
        self.hold(host, attempt, AttemptPhase::Running);
    }

    /// What the host will say of the attempt in its next Hello.
    pub(crate) fn hold(&self, host: &mut Host, attempt: AttemptId, phase: AttemptPhase) {
        host.held.retain(|held| held.attempt != attempt);
        let last_seq = Seq(host.seqs.get(&attempt).copied().unwrap_or(0));
        host.held.push(HelloAttempt {
            builder: BuilderIndex(0),
            attempt,
            phase,
            last_seq,
        });
    }

    pub(crate) fn end(&mut self, host: &mut Host, attempt: AttemptId, outcome: Outcome) {
        let seq = Self::next_seq(host, attempt);
        self.report(
            host,
            AgentFrame::Ended(Ended {
                attempt,
                seq,
                outcome,
                exit: Some(ExitStatus::Code(0)),
                usage: Usage::default(),
            }),
        );
        self.hold(host, attempt, AttemptPhase::Ended);
    }

    pub(crate) fn seal(&mut self, host: &mut Host, attempt: AttemptId) {
        let seq = Self::next_seq(host, attempt);
        self.report(
            host,
            AgentFrame::Sealed(Sealed {
                attempt,
                seq,
                manifest: Digest::of(b"manifest"),
                manifest_bytes: 8,
                outputs: 0,
                output_bytes: 0,
                log_bytes: 100,
                outcome: None,
            }),
        );
        self.hold(host, attempt, AttemptPhase::Sealed);
    }

    /// Log and outputs arrive.
    pub(crate) fn deliver(&mut self, attempt: AttemptId) {
        self.handle(Event::LogClosed {
            attempt,
            bytes: 100,
        });
        self.handle(Event::Collected {
            attempt,
            outputs: Vec::new().into(),
        });
    }

    /// The whole way from an offer to the delivery; resets are left open.
    pub(crate) fn run(&mut self, host: &mut Host, attempt: AttemptId, outcome: Outcome) {
        self.accept(host, attempt);
        self.start(host, attempt);
        self.end(host, attempt, outcome);
        self.seal(host, attempt);
    }

    /// What runs succeeds, and all of it arrives.
    pub(crate) fn run_on(&mut self, host: &mut Host, attempt: AttemptId) {
        self.end(host, attempt, Outcome::Succeeded);
        self.seal(host, attempt);
        self.deliver(attempt);
    }

    /// A job that runs on this host.
    pub(crate) fn running(&mut self, host: &mut Host, text: &str) -> AttemptId {
        self.submit(spec(text));
        let attempt = self.offered(host);
        self.accept(host, attempt);
        self.start(host, attempt);
        attempt
    }

    pub(crate) fn verdict(&self, job: JobId) -> Option<Verdict> {
        match &self.store.jobs.get(&job)?.state {
            JobState::Done(record) => Some(record.verdict.clone()),
            JobState::Waiting { .. } | JobState::Live(_) => None,
        }
    }

    pub(crate) fn waits(&self, job: JobId) -> bool {
        matches!(self.store.jobs[&job].state, JobState::Waiting { .. })
    }

    pub(crate) fn record(&self, host: &Host) -> &BuilderRecord {
        self.store
            .builders
            .values()
            .find(|builder| builder.name == host.builders[0].name)
            .unwrap()
    }

    pub(crate) fn close_code(&self) -> Option<CloseCode> {
        self.said.iter().find_map(|effect| match effect {
            Effect::Close { code, .. } => Some(*code),
            _ => None,
        })
    }

    pub(crate) fn sent(&self) -> Vec<CoordinatorFrame> {
        self.said
            .iter()
            .filter_map(|effect| match effect {
                Effect::Send { frame, .. } => Some(frame.clone()),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn aborts(&self) -> usize {
        self.sent()
            .iter()
            .filter(|frame| matches!(frame, CoordinatorFrame::Abort(_)))
            .count()
    }

    pub(crate) fn abandoned(&self, attempt: AttemptId) -> bool {
        self.sent().iter().any(
            |frame| matches!(frame, CoordinatorFrame::Abandon(order) if order.attempt == attempt),
        )
    }

    pub(crate) fn standing(&self, attempt: AttemptId) -> Standing {
        self.said
            .iter()
            .find_map(|effect| match effect {
                Effect::Welcome { attempts, .. } => attempts
                    .iter()
                    .find(|standing| standing.attempt == attempt)
                    .map(|standing| standing.standing.clone()),
                _ => None,
            })
            .expect("the Welcome tells the attempt's standing")
    }
}

fn at(time: Time) -> Now {
    Now {
        time,
        wall: Wall(time.0 / 1000),
    }
}

pub(crate) fn builder(text: &str) -> HelloBuilder {
    HelloBuilder {
        index: BuilderIndex(0),
        name: name(text),
        recipes: List::new(vec![name("command")]).unwrap(),
        architectures: List::new(vec![name("amd64")]).unwrap(),
        open_tags: List::default(),
        restricted_tags: List::default(),
        virtualized: false,
        rung: Rung::Sandbox,
        memory_bytes: 1 << 30,
        disk_bytes: 1 << 30,
        reset_scope: ResetScope::Workspace,
        spool_survives_reset: true,
        last_seq: Seq(0),
        occupied_by: None,
    }
}

pub(crate) fn failed() -> Outcome {
    Outcome::Failed {
        kind: FailureKind::Build,
        why: Reason::cut("make failed"),
    }
}

pub(crate) fn builder_problem() -> Outcome {
    Outcome::BuilderProblem {
        why: Reason::cut("the disk is broken"),
    }
}
