//! Submitting. Owns how jobs come into the farm: all of a submission or none,
//! the same key from the same owner only once, and a new generation of a
//! finished job. Never decides where a job runs.

use std::sync::Arc;

use farmbell_protocol::bounded::{Name, Text};
use farmbell_protocol::id::{JobId, SubmissionId};
use farmbell_protocol::spec::JobSpec;

use crate::effect::{Refused, RefusedCode, Reply};
use crate::event::Submit;
use crate::farm::Farm;
use crate::jobs::{Job, State, bounded};
use crate::ledger::About;
use crate::placement::needs_of;
use crate::record::{Change, JobRecord, JobState, KEYS_MAX, LedgerKind, SubmissionRecord};

impl Farm {
    pub(crate) fn submit(&mut self, by: &Text<128>, submit: Submit) -> Result<Reply, Refused> {
        let Some(first) = submit.jobs.first() else {
            return Err(Refused {
                code: RefusedCode::Invalid,
                cause: "a submission without jobs".to_owned(),
                fix: "name at least one job".to_owned(),
            });
        };
        let owner = self.queue.owners.intern(&first.owner);
        if let Some(key) = &submit.key
            && let Some(known) = self.submission_keys.get(&(owner, key.clone()))
            && let Some(record) = self.submissions.get(known)
        {
            return Ok(Reply::Submitted {
                submission: record.id,
                jobs: record.jobs.to_vec(),
                existed: true,
            });
        }
        self.admissible(&submit)?;
        let owner_name = first.owner.clone();
        self.meta.submission_floor += 1;
        self.step.meta = true;
        let submission = SubmissionId(self.meta.submission_floor);
        let specs = submit.jobs.into_vec();
        let jobs: Vec<JobId> = specs
            .into_iter()
            .map(|spec| self.accept_job(by, submission, spec))
            .collect();
        let record = SubmissionRecord {
            id: submission,
            owner: owner_name,
            key: submit.key,
            jobs: bounded(jobs.clone()),
            submitted: self.clock.wall(),
            by: by.clone(),
        };
        self.step.changes.push(Change::Submission(record.clone()));
        self.remember_submission(record);
        Ok(Reply::Submitted {
            submission,
            jobs,
            existed: false,
        })
    }

    /// Keeps what a repeated submit has to find.
    pub(crate) fn remember_submission(&mut self, record: SubmissionRecord) {
        let Some(key) = &record.key else { return };
        let owner = self.queue.owners.intern(&record.owner);
        self.submission_keys.insert((owner, key.clone()), record.id);
        self.submissions.insert(record.id, record);
        if self.submissions.len() > KEYS_MAX
            && let Some(oldest) = self.submissions.keys().next().copied()
        {
            self.forget_submission(oldest);
        }
    }

    /// A repeated submit of it is a new one from now on.
    pub(crate) fn forget_submission(&mut self, id: SubmissionId) {
        let key = self.submissions.remove(&id).and_then(|gone| {
            let owner = self.queue.owners.intern(&gone.owner);
            Some((owner, gone.key?))
        });
        if let Some(key) = key {
            self.submission_keys.remove(&key);
        }
    }

    fn admissible(&self, submit: &Submit) -> Result<(), Refused> {
        if self.meta.suspect.is_some() {
            return Err(suspect());
        }
        let owner = submit.jobs.first().map(|spec| &spec.owner);
        for spec in submit.jobs.iter() {
            check(spec)?;
            if Some(&spec.owner) != owner {
                return Err(Refused {
                    code: RefusedCode::Invalid,
                    cause: "the jobs of one submission have different owners".to_owned(),
                    fix: "submit each owner's jobs by themselves".to_owned(),
                });
            }
        }
        self.has_room(submit.jobs.len())?;
        if submit.allow_unmatched {
            return Ok(());
        }
        let on_offer = self.profiles_on_offer();
        let mut specs = submit.jobs.iter();
        match specs.find(|spec| !self.could_ever_run(spec, &on_offer)) {
            Some(spec) => Err(self.unmatched_refusal(spec)),
            None => Ok(()),
        }
    }

    fn has_room(&self, more: usize) -> Result<(), Refused> {
        let max = self.settings.limits.queued_jobs;
        let unfinished = self.jobs.len() + self.dependencies.len();
        if u64::try_from(unfinished + more).is_ok_and(|all| all <= max) {
            return Ok(());
        }
        Err(Refused {
            code: RefusedCode::Limit,
            cause: format!(
                "{unfinished} jobs are unfinished; {more} more pass the limit \
                 limits.queued_jobs = {max}"
            ),
            fix: "wait until some have finished, or raise the limit".to_owned(),
        })
    }

    fn accept_job(&mut self, by: &Text<128>, submission: SubmissionId, spec: JobSpec) -> JobId {
        self.meta.job_floor += 1;
        let id = JobId(self.meta.job_floor);
        let wall = self.clock.wall();
        let job = Job {
            submission,
            name: spec.name.as_str().into(),
            version: spec.version.as_str().into(),
            submitted: self.clock.now(),
            submitted_wall: wall,
            class: self.queue.intern_class(&needs_of(&spec), Vec::new()),
            input_bytes: spec
                .inputs
                .iter()
                .map(|input| input.length)
                .fold(0, u64::saturating_add),
            owner: self.queue.owners.intern(&spec.owner),
            suite: self.suites.intern(&spec.suite),
            priority: self.settings.scores.of(&spec, self.bonus(&spec.owner)),
            generation: 1,
            number: 0,
            ran: 0,
            refunded: 0,
            strikes: 0,
            attempts_max: match spec.retries {
                0 => self.settings.attempts_max,
                asked => asked,
            },
            private: spec.private,
            priority_frozen: false,
            suspended: false,
            braked: false,
            rare: None,
            state: State::Waiting { since: wall },
        };
        let what = [spec.name.as_str(), spec.version.as_str()].join(" ");
        let line = format!("{} for {}", what.trim_end(), spec.architecture);
        self.note(LedgerKind::JobSubmitted, About::job(id).by(by), line);
        self.step.changes.push(Change::Spec {
            job: id,
            spec: Arc::new(spec),
        });
        self.jobs.insert(id, job);
        self.enqueue(id);
        id
    }

    fn bonus(&self, owner: &Name) -> i32 {
        self.settings
            .shares
            .get(owner)
            .map_or(0, |share| share.bonus)
    }

    /// A finished job runs again, with all its history kept.
    pub(crate) fn retry(
        &mut self,
        by: &Text<128>,
        stored: &JobRecord,
        why: &Text<256>,
    ) -> Result<Reply, Refused> {
        if self.meta.suspect.is_some() {
            return Err(suspect());
        }
        let known = self.decided.generation(stored.id);
        let stale = known.is_some_and(|known| known != stored.generation);
        let finished = matches!(stored.state, JobState::Done(_));
        if self.jobs.contains_key(&stored.id) || stale || !finished {
            return Err(Refused {
                code: RefusedCode::Conflict,
                cause: format!("job {} is not finished", stored.id),
                fix: format!("see farmbell job show {}", stored.id),
            });
        }
        if let JobState::Done(verdict) = &stored.state
            && self.retiring.may_have_taken(verdict.at)
        {
            return Err(Refused {
                code: RefusedCode::Conflict,
                cause: format!(
                    "job {} finished so long ago that it is being retired",
                    stored.id
                ),
                fix: "submit it as a new job".to_owned(),
            });
        }
        self.has_room(1)?;
        // Of a job that waits the farm's own record is the newest.
        let kept = self.forget_wait(stored.id);
        // Whoever asks for a run lifts what held the one before.
        let stored = JobRecord {
            suspended: false,
            ..kept.unwrap_or_else(|| stored.clone())
        };
        self.next_generation(by, &stored, why)?;
        Ok(Reply::Done)
    }

    /// A decided job waits to be run again; one that is suspended stays so.
    pub(crate) fn next_generation(
        &mut self,
        by: &Text<128>,
        stored: &JobRecord,
        why: &str,
    ) -> Result<(), Refused> {
        let Some(generation) = stored.generation.checked_add(1) else {
            return Err(Refused {
                code: RefusedCode::Limit,
                cause: format!(
                    "job {} has had {} generations",
                    stored.id, stored.generation
                ),
                fix: "submit it as a new job".to_owned(),
            });
        };
        let wall = self.clock.wall();
        let job = Job {
            generation,
            number: 0,
            refunded: 0,
            strikes: 0,
            submitted: self.clock.now(),
            state: State::Waiting { since: wall },
            ..self.compact(stored)
        };
        self.jobs.insert(stored.id, job);
        let about = About::job(stored.id).by(by);
        self.note(
            LedgerKind::JobRetried,
            about,
            format!("generation {generation}: {why}"),
        );
        self.enqueue(stored.id);
        Ok(())
    }

    /// The compact form of a stored job, without its rare parts and as if it
    /// waited: the caller adds what it knows.
    pub(crate) fn compact(&mut self, stored: &JobRecord) -> Job {
        Job {
            submission: stored.submission,
            name: stored.name.as_str().into(),
            version: stored.version.as_str().into(),
            submitted: stored.submitted,
            submitted_wall: stored.submitted_wall,
            class: self.queue.intern_class(&stored.needs, Vec::new()),
            input_bytes: stored.input_bytes,
            owner: self.queue.owners.intern(&stored.owner),
            suite: self.suites.intern(&stored.suite),
            priority: stored.priority,
            generation: stored.generation,
            number: stored.attempt_number,
            ran: 0,
            refunded: stored.refunded,
            strikes: stored.strikes,
            attempts_max: stored.attempts_max,
            private: stored.private,
            priority_frozen: stored.priority_frozen,
            suspended: stored.suspended,
            braked: false,
            rare: None,
            state: State::Waiting {
                since: stored.submitted_wall,
            },
        }
    }
}

fn check(spec: &JobSpec) -> Result<(), Refused> {
    let named = [
        ("name", spec.name.is_empty()),
        ("recipe", spec.recipe.is_empty()),
        ("architecture", spec.architecture.is_empty()),
        ("owner", spec.owner.is_empty()),
    ];
    match named.into_iter().find(|(_, empty)| *empty) {
        Some((what, _)) => Err(Refused {
            code: RefusedCode::Invalid,
            cause: format!("job '{}' has no {what}", spec.name),
            fix: format!("give it a {what}"),
        }),
        None => Ok(()),
    }
}

pub(crate) fn suspect() -> Refused {
    Refused {
        code: RefusedCode::Suspect,
        cause: "agents have seen a later life of this store: a backup was restored".to_owned(),
        fix: "look at what differs (farmbell events), then: farmbell restore accept".to_owned(),
    }
}
