//! Acts on jobs, one or many. Owns suspending, scores by hand, the brake on
//! low scores, and doing the same to all jobs of a filter: in bounded steps
//! with a durable cursor, so that a million jobs hold nobody up and a restart
//! goes on where it was. Every act is in the ledger with who and why. Finished
//! jobs are retried in the same way (retries.rs), with steps of their own.

use std::ops::Bound;

use farmbell_protocol::bounded::{List, Name, Text};
use farmbell_protocol::id::JobId;
use farmbell_protocol::time::Time;

use crate::effect::{Refused, RefusedCode, Reply};
use crate::farm::Farm;
use crate::jobs::Job;
use crate::ledger::About;
use crate::record::{BrakeRecord, BulkAct, BulkRecord, Change, Filter, JobAct, LedgerKind, is};

/// Jobs that one step looks at.
pub(crate) const BULK_STEP: u32 = 1000;
/// Operations under way at once: each takes a step of every turn.
const BULK_MAX: usize = 16;

impl Farm {
    pub(crate) fn act_on_job(
        &mut self,
        by: &Text<128>,
        job: JobId,
        act: JobAct,
        why: &Text<256>,
    ) -> Result<Reply, Refused> {
        if self.apply(by, job, act, why) {
            return Ok(Reply::Done);
        }
        if !self.jobs.contains_key(&job) && self.dependencies.get(job).is_none() {
            return Err(self.no_such_job(job, act.past()));
        }
        match act {
            // Whoever resumes a job wants it to start, and something else holds it.
            JobAct::Resume => Err(Refused {
                code: RefusedCode::Conflict,
                cause: format!("job {job} is not suspended"),
                fix: format!("farmbell job explain {job} tells what it waits for"),
            }),
            JobAct::Cancel
            | JobAct::Supersede
            | JobAct::Suspend
            | JobAct::SetPriority(_)
            | JobAct::Reconsider => Ok(Reply::Done),
        }
    }

    pub(crate) fn begin_bulk(
        &mut self,
        by: &Text<128>,
        filter: Filter,
        act: JobAct,
        why: &Text<256>,
    ) -> Result<Reply, Refused> {
        self.has_room_for_bulk()?;
        let bulk = self.begin_steps(by, filter, act, why);
        Ok(self.bulk_reply(&bulk))
    }

    /// What whoever asked is told of its first step.
    pub(crate) fn bulk_reply(&self, bulk: &BulkRecord) -> Reply {
        Reply::Bulk {
            operation: bulk.id,
            matched: bulk.matched,
            changed: bulk.changed,
            finished: !self.bulk.contains_key(&bulk.id),
        }
    }

    /// Asked before anything is changed or told.
    pub(crate) fn has_room_for_bulk(&self) -> Result<(), Refused> {
        if self.bulk.len() < BULK_MAX {
            return Ok(());
        }
        Err(Refused {
            code: RefusedCode::Limit,
            cause: format!("{BULK_MAX} bulk operations are under way"),
            fix: "wait for the end of one (farmbell events)".to_owned(),
        })
    }

    /// The operation after its first step.
    fn begin_steps(
        &mut self,
        by: &Text<128>,
        filter: Filter,
        act: JobAct,
        why: &Text<256>,
    ) -> BulkRecord {
        let bulk = self.begun(by, filter, BulkAct::Each(act), why);
        self.step_bulk(bulk, act)
    }

    /// The operation before its first step.
    pub(crate) fn begun(
        &mut self,
        by: &Text<128>,
        filter: Filter,
        act: BulkAct,
        why: &Text<256>,
    ) -> BulkRecord {
        let line = format!("{}: {why}", act.past());
        self.note(LedgerKind::BulkBegun, About::default().by(by), line);
        BulkRecord {
            id: self.meta.ledger_floor,
            filter,
            act,
            by: by.clone(),
            why: why.clone(),
            cursor: JobId(0),
            last: JobId(self.meta.job_floor),
            matched: 0,
            changed: 0,
        }
    }

    /// When one of them goes on.
    pub(crate) fn bulk_due(&self) -> Option<Time> {
        let due = self.bulk.values().map(|bulk| match bulk.act {
            BulkAct::Each(_) => self.clock.now(),
            BulkAct::Retry => self.search_due(bulk.id),
        });
        due.min()
    }

    /// One more step of every operation under way.
    pub(crate) fn step_all_bulk(&mut self) {
        let all: Vec<BulkRecord> = self.bulk.values().cloned().collect();
        for bulk in all {
            match bulk.act {
                BulkAct::Each(act) => drop(self.step_bulk(bulk, act)),
                BulkAct::Retry => self.search_if_due(&bulk),
            }
        }
    }

    /// The operation as the step leaves it, which is under way unless it is
    /// over.
    fn step_bulk(&mut self, mut bulk: BulkRecord, act: JobAct) -> BulkRecord {
        let step = usize::try_from(BULK_STEP).unwrap_or(usize::MAX);
        let range = (Bound::Excluded(bulk.cursor), Bound::Included(bulk.last));
        let unfinished = self.jobs.range(range).take(step);
        let mut seen: Vec<(JobId, bool)> = unfinished
            .map(|(id, job)| (*id, self.means(&bulk.filter, job)))
            .collect();
        let dependents = self.dependencies.after(bulk.cursor);
        let dependents = dependents.take_while(|job| job.id <= bulk.last);
        seen.extend(
            dependents
                .take(step)
                .map(|job| (job.id, bulk.filter.means_finished(job))),
        );
        seen.sort_unstable();
        seen.truncate(step);
        let over = seen.len() < step;
        let before = bulk.cursor;
        for (job, meant) in seen {
            bulk.cursor = job;
            bulk.matched += u64::from(meant);
            if meant && self.apply(&bulk.by, job, act, &bulk.why) {
                bulk.changed += 1;
            }
        }
        self.keep_bulk(&bulk, before, over);
        bulk
    }

    /// Stores how far it is, or tells its end.
    pub(crate) fn keep_bulk(&mut self, bulk: &BulkRecord, before: JobId, over: bool) {
        if !over {
            self.bulk.insert(bulk.id, bulk.clone());
            let change = Change::Bulk(Box::new(bulk.clone()));
            return self.step.changes.push(change);
        }
        self.bulk.remove(&bulk.id);
        self.searches.remove(&bulk.id);
        // One that is over with its first step was never stored.
        if before > JobId(0) {
            self.step.changes.push(Change::BulkOver(bulk.id));
        }
        let BulkRecord {
            matched, changed, ..
        } = bulk;
        let passed_over = if changed == matched {
            String::new()
        } else {
            format!(" of {matched}")
        };
        let line = format!(
            "{changed}{passed_over} jobs {}: {}",
            bulk.act.past(),
            bulk.why
        );
        self.note(LedgerKind::BulkEnded, About::default().by(&bulk.by), line);
    }

    /// Those under way, and those that an older store kept among the farm's
    /// own numbers.
    pub(crate) fn restore_bulk(&mut self, stored: Vec<BulkRecord>) {
        self.bulk = stored.into_iter().map(|bulk| (bulk.id, bulk)).collect();
        for former in std::mem::take(&mut self.meta.bulk).into_vec() {
            let bulk = BulkRecord::from(former);
            let change = Change::Bulk(Box::new(bulk.clone()));
            self.step.changes.push(change);
            self.bulk.insert(bulk.id, bulk);
        }
    }

    /// Whether an unfinished job is meant.
    fn means(&self, filter: &Filter, job: &Job) -> bool {
        is(&filter.owner, self.queue.owners.name(job.owner))
            && is(&filter.architecture, &job.needs(&self.queue).architecture)
            && is(&filter.submission, &job.submission)
            && filter.means_name(&job.name)
            && filter.verdict.is_none()
            && (!filter.waiting || job.is_waiting())
    }

    /// Says whether the act changed anything.
    fn apply(&mut self, by: &Text<128>, id: JobId, act: JobAct, why: &Text<256>) -> bool {
        match act {
            JobAct::Cancel => self.wish(by, id, why, false),
            JobAct::Supersede => self.wish(by, id, why, true),
            JobAct::Suspend => self.suspend(by, id, why, true),
            JobAct::Resume => self.suspend(by, id, why, false),
            JobAct::SetPriority(priority) => self.set_priority(by, id, priority, why),
            JobAct::Reconsider => self.reconsider(id),
        }
    }

    fn suspend(&mut self, by: &Text<128>, id: JobId, why: &Text<256>, suspend: bool) -> bool {
        let differs = |suspended: &mut bool| std::mem::replace(suspended, suspend) != suspend;
        if let Some(job) = self.jobs.get_mut(&id) {
            if !differs(&mut job.suspended) {
                return false;
            }
            if suspend {
                self.unqueue(id);
            } else {
                self.enqueue(id);
            }
            self.step.touch_job(id);
        } else if !self.change_wait(id, |job| differs(&mut job.suspended)) {
            return false;
        }
        let kind = if suspend {
            LedgerKind::JobSuspended
        } else {
            LedgerKind::JobResumed
        };
        self.note(kind, About::job(id).by(by), why.as_str());
        true
    }

    fn set_priority(&mut self, by: &Text<128>, id: JobId, priority: i32, why: &Text<256>) -> bool {
        let mut before = None;
        let mut set = |score: &mut i32, frozen: &mut bool| {
            before = Some(std::mem::replace(score, priority));
            *frozen = true;
        };
        self.unqueue(id);
        if let Some(job) = self.jobs.get_mut(&id) {
            set(&mut job.priority, &mut job.priority_frozen);
            self.enqueue(id);
        } else {
            self.change_wait(id, |job| {
                set(&mut job.priority, &mut job.priority_frozen);
                true
            });
        }
        let Some(before) = before else {
            return false;
        };
        let line = format!("{before} -> {priority}: {why}");
        self.note(LedgerKind::JobPriority, About::job(id).by(by), line);
        true
    }

    fn reconsider(&mut self, id: JobId) -> bool {
        let Some(before) = self.jobs.get(&id).map(|job| job.braked) else {
            return false;
        };
        self.unqueue(id);
        self.enqueue(id);
        self.jobs.get(&id).is_some_and(|job| job.braked != before)
    }

    /// The least score that starts on this architecture.
    pub(crate) fn least_score(&self, architecture: &Name) -> Option<i32> {
        self.meta
            .brakes
            .iter()
            .filter(|brake| {
                brake
                    .architecture
                    .as_ref()
                    .is_none_or(|a| a == architecture)
            })
            .map(|brake| brake.least)
            .max()
    }

    /// Sets the least score that starts; none lifts it, and without an
    /// architecture every brake there is.
    pub(crate) fn brake(
        &mut self,
        by: &Text<128>,
        architecture: Option<Name>,
        least: Option<i32>,
        why: &Text<256>,
    ) -> Result<Reply, Refused> {
        self.has_room_for_bulk()?;
        self.meta.brakes = self.brakes_with(&architecture, least)?;
        let line = match (least, &architecture) {
            (Some(least), Some(of)) => format!("below {least} nothing starts on {of}: {why}"),
            (Some(least), None) => format!("below {least} nothing starts: {why}"),
            (None, Some(of)) => format!("lifted for {of}: {why}"),
            (None, None) => format!("lifted: {why}"),
        };
        self.note(LedgerKind::QueueBrake, About::default().by(by), line);
        let effective = match &architecture {
            Some(of) => self.least_score(of),
            None => least,
        };
        let filter = Filter {
            architecture,
            waiting: true,
            ..Filter::default()
        };
        let bulk = self.begin_steps(by, filter, JobAct::Reconsider, why);
        Ok(Reply::Braked {
            effective,
            changed: bulk.changed,
        })
    }

    /// The brakes as they are after this; lifting what is not set is a mistake
    /// about what holds jobs back.
    fn brakes_with(
        &self,
        architecture: &Option<Name>,
        least: Option<i32>,
    ) -> Result<List<BrakeRecord, 64>, Refused> {
        let mut brakes = self.meta.brakes.to_vec();
        match architecture {
            None if least.is_none() => brakes.clear(),
            _ => brakes.retain(|brake| brake.architecture != *architecture),
        }
        if least.is_none() && brakes.len() == self.meta.brakes.len() {
            return Err(self.no_such_brake(architecture));
        }
        brakes.extend(least.map(|least| BrakeRecord {
            architecture: architecture.clone(),
            least,
        }));
        List::new(brakes).map_err(|too_many| Refused {
            code: RefusedCode::Limit,
            cause: format!("there are {} brakes already", too_many.max),
            fix: "lift one, or set one for every architecture".to_owned(),
        })
    }

    fn no_such_brake(&self, architecture: &Option<Name>) -> Refused {
        let everywhere = architecture.as_ref().and_then(|of| self.least_score(of));
        Refused {
            code: RefusedCode::Conflict,
            cause: match architecture {
                Some(of) => format!("no brake is set on {of}"),
                None => "no brake is set".to_owned(),
            },
            fix: match everywhere {
                Some(least) => format!(
                    "the one on every architecture holds back what is below {least}; \
                     farmbell brake --lift lifts it"
                ),
                None => "farmbell job explain JOB tells what holds a job back".to_owned(),
            },
        }
    }
}

impl BulkAct {
    const fn past(self) -> &'static str {
        match self {
            Self::Each(act) => act.past(),
            Self::Retry => "retried",
        }
    }
}

impl JobAct {
    /// For sentences: "3 jobs cancelled".
    #[must_use]
    pub const fn past(self) -> &'static str {
        match self {
            Self::Cancel => "cancelled",
            Self::Supersede => "superseded",
            Self::Suspend => "suspended",
            Self::Resume => "resumed",
            Self::SetPriority(_) => "given another score",
            Self::Reconsider => "held or let go by the brake",
        }
    }
}
