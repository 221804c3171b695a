//! Records as a farm would write them, made from a number.

use std::sync::Arc;

use farmbell_farm::record::{
    AgentRecord, AgentStanding, AttemptEnd, AttemptRecord, BuilderOffer, BuilderRecord, BulkRecord,
    Change, Cleanliness, DurationRecord, Ending, Envelope, FormerBulk, FormerFilter, JobAct,
    JobRecord, JobState, LedgerEntry, LedgerKind, Needs, Occupation, OperatorMode, PackageKey,
    PackageRecord, ResetProof, ResetRule, ResetWhen, Stage, SubmissionRecord, TokenRecord,
    VerdictRecord,
};
use farmbell_protocol::agent_to_coordinator::{Fitness, ResetScope};
use farmbell_protocol::bounded::{List, Text};
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::{
    AgentId, AttemptId, BuilderId, JobId, KeyHash, Seq, SessionId, SpoolId, SubmissionId,
};
use farmbell_protocol::outcome::{FailureKind, Usage, Verdict};
use farmbell_protocol::spec::{FileName, JobSpec, Output, Rung};
use farmbell_protocol::time::{Time, Wall};

pub(crate) fn text<const MAX: usize>(text: &str) -> Text<MAX> {
    Text::new(text).unwrap()
}

pub(crate) fn attempt_id(job: u64) -> AttemptId {
    AttemptId {
        job: JobId(job),
        generation: 1,
        number: 1,
        nonce: u64::MAX - job,
    }
}

pub(crate) fn submission(id: u64, key: Option<&str>, jobs: &[u64]) -> SubmissionRecord {
    SubmissionRecord {
        id: SubmissionId(id),
        owner: text("kim"),
        key: key.map(text),
        jobs: List::new(jobs.iter().map(|job| JobId(*job)).collect()).unwrap(),
        submitted: Wall(1),
        by: text("kim"),
    }
}

pub(crate) fn waiting(job: u64) -> JobRecord {
    JobRecord {
        id: JobId(job),
        submission: SubmissionId(job),
        name: text("hello"),
        version: text("2.10-3"),
        needs: Needs {
            recipe: text("command"),
            architecture: text("amd64"),
            virtualized: false,
            rung: Rung::Process,
            tags: List::default(),
            memory_bytes: 0,
            disk_bytes: 0,
        },
        suite: text("bookworm"),
        input_bytes: 750_000,
        owner: text(if job.is_multiple_of(2) { "kim" } else { "lou" }),
        private: false,
        priority: 3,
        submitted: Time(job),
        submitted_wall: Wall(job),
        generation: 1,
        attempt_number: 0,
        attempts_max: 3,
        refunded: 0,
        strikes: 0,
        priority_frozen: false,
        suspended: false,
        excluded: List::default(),
        cancel: None,
        lost: List::default(),
        state: JobState::Waiting { since: Wall(job) },
    }
}

pub(crate) fn live(job: u64) -> JobRecord {
    JobRecord {
        attempt_number: 1,
        state: JobState::Live(Box::new(attempt(job, None))),
        ..waiting(job)
    }
}

pub(crate) fn done(job: u64) -> JobRecord {
    JobRecord {
        attempt_number: 1,
        state: JobState::Done(VerdictRecord {
            verdict: Verdict::Succeeded,
            attempt: Some(attempt_id(job)),
            at: Wall(9),
        }),
        ..waiting(job)
    }
}

pub(crate) fn attempt(job: u64, end: Option<AttemptEnd>) -> AttemptRecord {
    AttemptRecord {
        id: attempt_id(job),
        builder: BuilderId(1),
        builder_name: text("b1"),
        agent: AgentId(1),
        spool: SpoolId([7; 16]),
        stage: Stage::Running,
        acked: Seq(2),
        assigned: Wall(2),
        started: Some(Wall(3)),
        ended: None,
        outcome: None,
        exit: None,
        usage: Usage::default(),
        sealed: None,
        log_closed: None,
        collected: false,
        progress_deadline: None,
        end,
    }
}

pub(crate) fn spec(job: u64) -> Arc<JobSpec> {
    Arc::new(JobSpec {
        name: text("hello"),
        version: text("2.10-3"),
        recipe: text("command"),
        parameters: List::default(),
        architecture: text("amd64"),
        suite: text("bookworm"),
        archives: List::default(),
        arch_scope: farmbell_protocol::spec::ArchScope::All,
        build_profiles: List::default(),
        inputs: List::default(),
        outputs: List::default(),
        environment: List::default(),
        secrets: List::default(),
        network: farmbell_protocol::spec::Network::None,
        limits: farmbell_protocol::spec::Limits::default(),
        tags: List::default(),
        rung: Rung::Process,
        virtualized: false,
        owner: text("kim"),
        private: false,
        priority: i32::try_from(job).unwrap(),
        retries: 0,
        notify: List::default(),
    })
}

pub(crate) fn outputs(job: u64) -> Arc<[Output]> {
    Arc::new([Output {
        name: FileName::new(format!("hello_{job}.deb")).unwrap(),
        digest: Digest::of(&job.to_le_bytes()),
        length: 8,
        executable: false,
    }])
}

pub(crate) fn builder(id: u32) -> BuilderRecord {
    BuilderRecord {
        id: BuilderId(id),
        agent: AgentId(1),
        name: text("b1"),
        offer: BuilderOffer {
            recipes: List::default(),
            architectures: List::default(),
            open_tags: List::default(),
            restricted_tags: List::default(),
            virtualized: false,
            rung: Rung::Process,
            memory_bytes: 1,
            disk_bytes: 1,
            reset_scope: ResetScope::Workspace,
            spool_survives_reset: true,
        },
        cleanliness: Cleanliness::Resetting { deadline: Time(5) },
        occupation: Occupation::Held {
            attempt: attempt_id(1),
        },
        mode: OperatorMode::Enabled,
        mode_why: text(""),
        mode_by: text(""),
        mode_since: Wall(1),
        drain_deadline: None,
        fitness: Fitness::Fit,
        fitness_why: text(""),
        strikes: 2,
        acked: Seq(9),
        nonce: None,
        reset_rule: ResetRule {
            when: ResetWhen::Before,
            reporter: Some(text("vm-manager")),
        },
        reset_proof: ResetProof::default(),
        reset_retry: None,
        trouble: Some(text("the probe said no")),
    }
}

pub(crate) fn agent(id: u32) -> AgentRecord {
    AgentRecord {
        id: AgentId(id),
        name: text("a1"),
        key: KeyHash([3; 32]),
        envelope: Envelope::default(),
        standing: AgentStanding::Active,
        standing_why: text(""),
        session: SessionId(4),
        boot: None,
        incarnation: 1,
        spool: None,
        software: text("farmbell 0.1.0"),
        address: text("192.0.2.1:5"),
        facts: List::default(),
        joined: Wall(1),
        last_seen: Wall(2),
        lost_at: Some(Time(77)),
    }
}

pub(crate) fn duration(name: &str, seconds: u32) -> DurationRecord {
    DurationRecord {
        name: text(name),
        architecture: text("amd64"),
        seconds,
        input_bytes: 750_000,
    }
}

pub(crate) fn package(name: &str, owner: Option<&str>, at: u64) -> PackageRecord {
    PackageRecord {
        key: PackageKey {
            name: text(name),
            architecture: text("amd64"),
            suite: text("bookworm"),
            owner: owner.map(text),
        },
        version: text("1:2.0-1"),
        at: Time(at),
    }
}

/// Half done: the farm's own numbers have it up to schema 2.
pub(crate) fn former_bulk() -> FormerBulk {
    FormerBulk {
        id: 1,
        filter: FormerFilter {
            owner: Some(text("kim")),
            submission: Some(SubmissionId(3)),
            architecture: None,
            name: Some(text("hello")),
            waiting: true,
        },
        act: JobAct::SetPriority(-7),
        by: text("root"),
        why: text("first things first"),
        cursor: JobId(1),
        last: JobId(3),
        changed: 1,
    }
}

/// Half done.
pub(crate) fn bulk() -> BulkRecord {
    let mut bulk = BulkRecord::from(former_bulk());
    bulk.filter.begins = Some(text("hel"));
    bulk.filter.verdict = Some(Ending::FailedAs(FailureKind::DependencyWait));
    bulk.matched = 2;
    bulk
}

pub(crate) fn token(id: u64, used: u32) -> TokenRecord {
    TokenRecord {
        id,
        secret_hash: [9; 32],
        uses: 3,
        used,
        expires: Time(1000),
        expires_wall: Wall(1000),
        envelope: Envelope::default(),
        created_by: text("kim"),
        created: Wall(1),
        revoked: false,
    }
}

pub(crate) fn entry(seq: u64) -> LedgerEntry {
    LedgerEntry {
        seq,
        at: Wall(seq),
        kind: LedgerKind::JobSubmitted,
        job: Some(JobId(seq)),
        attempt: None,
        builder: None,
        agent: None,
        by: text("kim"),
        why: text("because"),
    }
}

/// One submit of one job, as the farm commits it.
pub(crate) fn submit(job: u64) -> Vec<Change> {
    vec![
        Change::Submission(submission(job, None, &[job])),
        Change::Job(Box::new(waiting(job))),
        Change::Spec {
            job: JobId(job),
            spec: spec(job),
        },
        Change::Ledger(entry(job)),
    ]
}
