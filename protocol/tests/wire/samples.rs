//! One value of everything that can travel, with every variant of every enum.
#![expect(clippy::unwrap_used, reason = "constants of a test")]

use farmbell_protocol::agent_to_coordinator::*;
use farmbell_protocol::bounded::{Blob, List, Name, Reason, Text};
use farmbell_protocol::bulk::*;
use farmbell_protocol::coordinator_to_agent::*;
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::*;
use farmbell_protocol::outcome::{ExitStatus, FailureKind, Outcome, Usage};
use farmbell_protocol::spec::*;
use farmbell_protocol::version::Features;

const SEQ: Seq = Seq(3);
const BUILDER: BuilderIndex = BuilderIndex(1);
const NONCE: CleanNonce = CleanNonce(0x1122_3344_5566_7788);

fn attempt() -> AttemptId {
    AttemptId {
        job: JobId(300),
        generation: 1,
        number: 2,
        nonce: u64::MAX,
    }
}

fn epoch() -> Epoch {
    Epoch {
        counter: 7,
        random: 0xfeed,
    }
}

fn names<const MAX: usize>(names: &[&str]) -> List<Name, MAX> {
    List::new(names.iter().map(|name| Name::new(*name).unwrap()).collect()).unwrap()
}

fn why() -> Reason {
    Reason::new("because ☃").unwrap()
}

fn outcomes() -> Vec<Outcome> {
    let failed = |kind| Outcome::Failed { kind, why: why() };
    vec![
        Outcome::Succeeded,
        failed(FailureKind::Build),
        failed(FailureKind::Outputs),
        failed(FailureKind::DependencyWait),
        failed(FailureKind::ChrootProblem),
        failed(FailureKind::Limit),
        Outcome::BuilderProblem { why: why() },
        Outcome::GivenBack { why: why() },
        Outcome::Aborted,
        Outcome::SupervisorLost { why: why() },
    ]
}

fn sealed(outcome: Option<Outcome>) -> AgentFrame {
    Sealed {
        attempt: attempt(),
        seq: SEQ,
        manifest: Digest::of(b"manifest"),
        manifest_bytes: 120,
        outputs: 2,
        output_bytes: 1 << 33,
        log_bytes: 4096,
        outcome,
    }
    .into()
}

fn hello_builder(reset_scope: ResetScope, rung: Rung) -> AgentFrame {
    HelloBuilder {
        index: BUILDER,
        name: Name::cut("b1"),
        recipes: names(&["command", "debian-binary"]),
        architectures: names(&["amd64", "i386"]),
        open_tags: names(&["big"]),
        restricted_tags: names(&["gpu"]),
        virtualized: rung == Rung::Virtual,
        rung,
        memory_bytes: 16 << 30,
        disk_bytes: 1 << 40,
        reset_scope,
        spool_survives_reset: true,
        last_seq: SEQ,
        occupied_by: (rung == Rung::Process).then(attempt),
    }
    .into()
}

fn refused(refusal: Refusal) -> AgentFrame {
    Refused {
        attempt: attempt(),
        seq: SEQ,
        refusal,
        why: why(),
    }
    .into()
}

fn reset_failed(stage: ResetStage, failure: ScriptFailure) -> AgentFrame {
    ResetFailed {
        builder: BUILDER,
        seq: SEQ,
        nonce: NONCE,
        stage,
        failure,
        stdout: Blob::new(b"out".to_vec()).unwrap(),
        stderr: Blob::new(b"\x00\xff".to_vec()).unwrap(),
    }
    .into()
}

fn opening() -> Vec<AgentFrame> {
    vec![
        Join {
            token: 1 << 40,
            secret: [7; 16],
            name: Name::cut("agent-1"),
            software: Name::cut("farmbell 0.1.0"),
        }
        .into(),
        Hello {
            version_min: 1,
            version_max: 1,
            features: Features(1 << 63),
            software: Name::cut("farmbell 0.1.0"),
            boot: BootId([1; 16]),
            incarnation: 12,
            spool: SpoolId([2; 16]),
            epoch: epoch(),
            previous_session: Some(SessionId(9)),
            builders: 4,
            attempts: 4,
            facts: List::new(vec![Fact {
                kind: fact::HOSTNAME,
                value: Blob::new(b"host".to_vec()).unwrap(),
            }])
            .unwrap(),
        }
        .into(),
        hello_builder(ResetScope::Workspace, Rung::Process),
        hello_builder(ResetScope::Guest, Rung::Virtual),
        hello_builder(ResetScope::Host, Rung::Sandbox),
        hello_builder(ResetScope::Host, Rung::Chroot),
        HelloEnd {}.into(),
    ]
}

pub(crate) fn agent() -> Vec<AgentFrame> {
    let mut frames = opening();
    frames.extend(of_attempts());
    frames.extend(of_builders());
    frames
}

fn of_attempts() -> Vec<AgentFrame> {
    let (attempt, seq, builder) = (attempt(), SEQ, BUILDER);
    let mut frames = Vec::new();
    for phase in [
        AttemptPhase::Accepted,
        AttemptPhase::Running,
        AttemptPhase::Ended,
        AttemptPhase::Sealed,
    ] {
        frames.push(
            HelloAttempt {
                builder,
                attempt,
                phase,
                last_seq: seq,
            }
            .into(),
        );
    }
    frames.push(Accepted { attempt, seq }.into());
    frames.extend(
        [
            Refusal::Occupied,
            Refusal::UnknownRecipe,
            Refusal::NoSpace,
            Refusal::Backlog,
            Refusal::Draining,
            Refusal::Input,
            Refusal::Unfit,
        ]
        .map(refused),
    );
    frames.push(Started { attempt, seq }.into());
    for (number, outcome) in outcomes().into_iter().enumerate() {
        frames.push(
            Ended {
                attempt,
                seq,
                outcome,
                exit: match number {
                    0 => Some(ExitStatus::Code(0)),
                    1 => Some(ExitStatus::Signal(9)),
                    _ => None,
                },
                usage: Usage {
                    wall_ms: 1,
                    cpu_ms: 2,
                    memory_peak_bytes: 3,
                    read_bytes: 4,
                    written_bytes: 5,
                },
            }
            .into(),
        );
    }
    frames.push(sealed(None));
    frames.push(sealed(outcomes().into_iter().nth(2)));
    frames.push(
        OutputsLost {
            attempt,
            seq,
            why: why(),
        }
        .into(),
    );
    frames
}

fn of_builders() -> Vec<AgentFrame> {
    let (seq, builder, nonce) = (SEQ, BUILDER, NONCE);
    let mut frames = Vec::new();
    frames.push(
        ResetStarted {
            builder,
            seq,
            nonce,
        }
        .into(),
    );
    let exit = ScriptFailure::Exit(ExitStatus::Code(1));
    frames.push(reset_failed(ResetStage::Reset, exit));
    let late = ScriptFailure::TimedOut { after_ms: 30_000 };
    frames.push(reset_failed(ResetStage::Probe, late));
    let not_run = ScriptFailure::NotRun { why: why() };
    frames.push(reset_failed(ResetStage::Reset, not_run));
    frames.push(
        Clean {
            builder,
            seq,
            nonce,
            reset_ms: 900,
            probe_ms: 20,
        }
        .into(),
    );
    for fitness in [
        Fitness::Fit,
        Fitness::Backlog,
        Fitness::DiskLow,
        Fitness::ReadOnly,
        Fitness::Unkillable,
        Fitness::Throttled,
        Fitness::Draining,
    ] {
        frames.push(
            Condition {
                builder,
                seq,
                fitness,
                why: Text::cut("12 MiB left"),
            }
            .into(),
        );
    }
    frames
}

fn spec() -> JobSpec {
    JobSpec {
        name: Text::cut("hello"),
        version: Text::cut("2.10-3"),
        recipe: Name::cut("debian-binary"),
        parameters: List::new(vec![Parameter {
            key: Name::cut("argv"),
            value: Text::cut("[\"true\"]"),
        }])
        .unwrap(),
        architecture: Name::cut("amd64"),
        suite: Name::cut("bookworm"),
        archives: List::new(vec![Text::cut("deb http://deb.debian.org/debian sid main")]).unwrap(),
        arch_scope: ArchScope::ArchOnly,
        build_profiles: names(&["nocheck"]),
        inputs: List::new(vec![Input {
            name: FileName::new("dir/hello.dsc").unwrap(),
            digest: Digest::of(b"dsc"),
            length: 3,
            private: true,
        }])
        .unwrap(),
        outputs: List::new(vec![Text::cut("*.deb")]).unwrap(),
        environment: List::new(vec![Variable {
            name: Text::cut("LANG"),
            value: Text::cut("C.UTF-8"),
        }])
        .unwrap(),
        secrets: names(&["token"]),
        network: Network::Full,
        limits: Limits {
            total_ms: 1,
            silence_ms: 2,
            grace_ms: 3,
            memory_bytes: 4,
            disk_bytes: 5,
            processes: 6,
            cpu_millis: 7,
            log_bytes: 8,
            outputs: 9,
            output_bytes: 10,
        },
        tags: names(&["big"]),
        rung: Rung::Sandbox,
        virtualized: true,
        owner: Name::cut("kim"),
        private: true,
        priority: -5,
        retries: 2,
        notify: List::new(vec![Text::cut("mailto:kim@example.org")]).unwrap(),
    }
}

pub(crate) fn coordinator() -> Vec<CoordinatorFrame> {
    let (attempt, builder, nonce, seq) = (attempt(), BUILDER, NONCE, SEQ);
    let mut frames: Vec<CoordinatorFrame> = vec![
        Joined {
            agent: AgentId(5),
            name: Name::cut("agent-1"),
        }
        .into(),
        Welcome {
            version: 1,
            features: Features(0),
            agent: AgentId(5),
            session: SessionId(10),
            epoch: epoch(),
            bulk: Text::cut(":8441"),
            ticket: [3; 16],
            successors: List::new(vec![KeyHash([4; 32])]).unwrap(),
        }
        .into(),
        WelcomeBuilder {
            index: builder,
            builder: BuilderId(6),
            acked: seq,
        }
        .into(),
    ];
    for standing in [
        Standing::Continue { acked: seq },
        Standing::Committed,
        Standing::Abandon { why: why() },
        Standing::Lost,
    ] {
        frames.push(WelcomeAttempt { attempt, standing }.into());
    }
    let mut indep = spec();
    indep.arch_scope = ArchScope::IndepOnly;
    indep.network = Network::None;
    let mut all = spec();
    all.arch_scope = ArchScope::All;
    all.rung = Rung::Chroot;
    for spec in [spec(), indep, all] {
        frames.push(
            Offer {
                builder,
                attempt,
                spec: Box::new(spec),
            }
            .into(),
        );
    }
    frames.extend::<[CoordinatorFrame; 7]>([
        WelcomeEnd {}.into(),
        Abort {
            attempt,
            why: why(),
        }
        .into(),
        Abandon {
            attempt,
            why: why(),
        }
        .into(),
        Committed { attempt }.into(),
        Ack { attempt, seq }.into(),
        Reset { builder, nonce }.into(),
        BuilderAck { builder, seq }.into(),
    ]);
    frames
}

pub(crate) fn bulk_requests() -> Vec<BulkRequest> {
    let (attempt, digest) = (attempt(), Digest::of(b"blob"));
    vec![
        BulkHello {
            session: SessionId(10),
            ticket: [3; 16],
        }
        .into(),
        LogOpen { attempt }.into(),
        LogData {
            offset: 1 << 32,
            bytes: Blob::new(b"a line\n".to_vec()).unwrap(),
        }
        .into(),
        LogCut {
            offset: 9,
            dropped: 1 << 40,
        }
        .into(),
        LogEnd { length: 16 }.into(),
        BlobOpen {
            attempt,
            digest,
            length: 4,
        }
        .into(),
        InputOpen {
            attempt,
            digest,
            offset: 2,
        }
        .into(),
    ]
}

pub(crate) fn bulk_replies() -> Vec<BulkReply> {
    let mut frames: Vec<BulkReply> = vec![
        BulkReady {}.into(),
        LogHave { offset: 7 }.into(),
        LogStored { offset: 16 }.into(),
        BlobHave {
            chunks: 3,
            want_nodes: true,
        }
        .into(),
        BlobStored {
            digest: Digest::of(b"blob"),
        }
        .into(),
        InputHave { length: 4 }.into(),
    ];
    for refusal in [
        BulkRefusal::NotYours,
        BulkRefusal::Corrupt,
        BulkRefusal::NoSpace,
        BulkRefusal::NoSuchInput,
        BulkRefusal::Hole,
    ] {
        frames.push(
            BulkRefused {
                refusal,
                why: why(),
            }
            .into(),
        );
    }
    frames
}
