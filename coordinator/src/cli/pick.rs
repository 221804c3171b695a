//! Which jobs a command means: named ones, or all that a filter matches. Owns
//! the filter's options, for lists and for acts on many jobs alike.

use std::cell::Cell;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use futures_util::{StreamExt, TryStreamExt};
use serde::Serialize;

use super::client::segment;
use super::exit::{Exit, Failure, Result, advice};
use super::output::remark;
use super::{Context, words};
use crate::http::wire::{
    BulkRequest, BulkView, FilterSpec, JobActRequest, JobActSpec, JobDetail, JobList, JobView,
};

const NO_MATCH: &str = "no job matches";
/// Jobs asked for at a time.
const PAGE: u32 = 500;

/// Acts on the way at once: enough that they share commits, few enough that
/// other people's requests find a place.
const AT_ONCE: usize = 16;

/// Options that narrow jobs down. None: all of them.
#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
pub(super) struct Filter {
    /// waiting, suspended, assigned, running, collecting, finishing, cancelling,
    /// done, or a verdict: succeeded, failed, cancelled, superseded,
    /// infrastructure; or of the failed: `dependency_wait`, `chroot_problem`
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(super) state: Option<String>,
    /// Jobs of this owner
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(super) owner: Option<String>,
    /// Jobs for this architecture
    #[arg(long, value_name = "ARCH", value_parser = NonEmptyStringValueParser::new())]
    pub(super) arch: Option<String>,
    /// Jobs whose name begins so
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(super) name: Option<String>,
    /// The jobs of one submission
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub(super) submission: Option<String>,
}

/// Jobs by name or by filter, never by accident all of them.
#[derive(Args, Clone, Debug)]
pub(super) struct Pick {
    /// Ids of jobs, or the beginnings of them
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    jobs: Vec<String>,
    #[command(flatten)]
    filter: Filter,
}

/// What the help of the acts that the farm can do by itself says of the others.
pub(super) const MANY_IN_FARM: &str =
    "Jobs picked by --owner, --arch, --submission and --state waiting are acted on in
the farm, which goes on whatever restarts. Those picked by --name, by another
state or by ids are gone through by this command, which stops with its terminal.";

/// The same for those that bring finished jobs back.
pub(super) const MANY_FINISHED: &str =
    "Jobs picked by a filter are retried in the farm, which goes on whatever restarts.
Those picked by ids are gone through by this command, which stops with its
terminal.";

/// The same for the others.
pub(super) const MANY_HERE: &str =
    "Several jobs are gone through by this command, which stops with its terminal.";

/// Whom an act is for. A filter without a state means no others, so that who
/// cancels by name is not refused by every finished job of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// Also those whose verdict stands while they wait for dependencies.
    UnfinishedOrDependent,
    Suspended,
    Finished,
    Dependent,
}

/// One act on jobs that this command goes through itself.
pub(super) struct Each<'a, B> {
    pub(super) act: &'a str,
    pub(super) whom: Whom,
    pub(super) body: &'a B,
    /// What is said of a job when it is done.
    pub(super) line: fn(&JobView) -> String,
}

impl Whom {
    const fn of(act: JobActSpec) -> Self {
        match act {
            JobActSpec::Cancel
            | JobActSpec::Supersede
            | JobActSpec::Suspend
            | JobActSpec::SetPriority(_) => Self::UnfinishedOrDependent,
            JobActSpec::Resume => Self::Suspended,
            JobActSpec::Retry => Self::Finished,
        }
    }

    const fn has_dependents(self) -> bool {
        match self {
            Self::UnfinishedOrDependent | Self::Dependent => true,
            Self::Suspended | Self::Finished => false,
        }
    }

    /// As far as a list tells.
    fn may_have(self, job: &JobView) -> bool {
        match self {
            Self::Suspended => job.suspended,
            Self::UnfinishedOrDependent => job.verdict.is_none() || lacked_packages(job),
            Self::Finished => job.verdict.is_some(),
            Self::Dependent => lacked_packages(job),
        }
    }
}

/// Whether that is its verdict; whether it still waits for them only the farm knows.
fn lacked_packages(job: &JobView) -> bool {
    let kind = job
        .verdict
        .as_ref()
        .and_then(|verdict| verdict.kind.as_deref());
    kind == Some("dependency_wait")
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.pairs().iter().all(|(_, value)| value.is_none())
    }

    /// The same filter for the farm, as far as it can say it: of what is retried,
    /// how it ended; of anything else, whether it waits, and no beginnings of
    /// names.
    fn in_farm(&self, act: JobActSpec) -> Option<FilterSpec> {
        if act == JobActSpec::Retry {
            return Some(FilterSpec {
                owner: self.owner.clone(),
                submission: self.submission.clone(),
                architecture: self.arch.clone(),
                begins: self.name.clone(),
                verdict: self.state.clone().filter(|state| state != "done"),
                ..FilterSpec::default()
            });
        }
        let waiting = match self.state.as_deref() {
            None => false,
            Some("waiting") => true,
            Some(_) => return None,
        };
        if self.name.is_some() {
            return None;
        }
        Some(FilterSpec {
            owner: self.owner.clone(),
            submission: self.submission.clone(),
            architecture: self.arch.clone(),
            waiting,
            ..FilterSpec::default()
        })
    }

    fn pairs(&self) -> [(&'static str, &Option<String>); 5] {
        [
            ("state", &self.state),
            ("owner", &self.owner),
            ("arch", &self.arch),
            ("name", &self.name),
            ("submission", &self.submission),
        ]
    }

    /// At most `wanted` jobs, newest first.
    pub(super) async fn jobs(&self, context: &Context, wanted: u32) -> Result<Vec<JobView>> {
        self.jobs_that(context, wanted, |_| true).await
    }

    /// The same of those that are `meant`; the others are not kept, since a
    /// history may be long.
    async fn jobs_that(
        &self,
        context: &Context,
        wanted: u32,
        meant: impl Fn(&JobView) -> bool,
    ) -> Result<Vec<JobView>> {
        let mut query = String::new();
        for (name, value) in self.pairs() {
            if let Some(value) = value {
                query.push_str(&format!("&{name}={}", segment(value)));
            }
        }
        let mut jobs: Vec<JobView> = Vec::new();
        let mut cursor = String::new();
        loop {
            let have = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
            let limit = PAGE.min(wanted.saturating_sub(have));
            if limit == 0 {
                return Ok(jobs);
            }
            let path = format!("/api/v1/jobs?limit={limit}{query}{cursor}");
            let page: JobList = context.client.get(&path).await?;
            jobs.extend(page.jobs.into_iter().filter(&meant));
            match page.next {
                Some(next) => cursor = format!("&cursor={}", segment(&next)),
                None => return Ok(jobs),
            }
        }
    }

    /// The ids of those that an act is for.
    async fn ids_for(&self, context: &Context, whom: Whom) -> Result<Vec<String>> {
        let as_typed = match self.state.as_deref() {
            None => false,
            // Also the verdict of those that wait no more.
            Some("dependency_wait") => !whom.has_dependents(),
            Some(_) => true,
        };
        let meant = |job: &JobView| as_typed || whom.may_have(job);
        let jobs = self.jobs_that(context, u32::MAX, meant).await?;
        futures_util::stream::iter(jobs)
            .map(|job| async move {
                let meant = as_typed
                    || !lacked_packages(&job)
                    || !whom.has_dependents()
                    || still_waits(context, &job.id).await?;
                Ok(meant.then_some(job.id))
            })
            .buffered(AT_ONCE)
            .try_filter_map(|id| std::future::ready(Ok(id)))
            .try_collect()
            .await
    }

    /// Nothing matched, which is no failure, unless what was typed is not there.
    async fn matched_nothing(&self, context: &Context) -> Result<()> {
        let Some(submission) = &self.submission else {
            return Ok(());
        };
        let whole = Self {
            submission: Some(submission.clone()),
            ..Self::default()
        };
        if whole.jobs(context, 1).await?.is_empty() {
            return Err(Failure::new(
                Exit::NotFound,
                format!("there is no submission {submission}"),
                "`farmbell job show` tells a job's submission.",
            )
            .try_this("farmbell jobs"));
        }
        Ok(())
    }
}

async fn still_waits(context: &Context, id: &str) -> Result<bool> {
    let path = format!("/api/v1/jobs/{}", segment(id));
    let detail: JobDetail = context.client.get(&path).await?;
    Ok(detail.waits_for.is_some())
}

impl Pick {
    async fn ids(&self, context: &Context, whom: Whom) -> Result<Vec<String>> {
        match (self.jobs.is_empty(), self.filter.is_empty()) {
            (false, true) => Ok(self.jobs.clone()),
            (true, false) => self.filter.ids_for(context, whom).await,
            (true, true) => Err(Failure::usage(
                "no job is named",
                "Name jobs by their ids, or all of a kind by --state, --owner, --arch, --name, --submission.",
            )
            .try_this("farmbell jobs")),
            (false, false) => Err(Failure::usage(
                "jobs are named by ids and by a filter at once",
                "Use the one or the other.",
            )),
        }
    }

    /// Acts on them: in the farm, which goes on whatever restarts, where its
    /// filter says as much as this one does; else one by one from here, which
    /// ends with this command.
    pub(super) async fn act(
        &self,
        context: &Context,
        act: JobActSpec,
        reason: String,
    ) -> Result<Exit> {
        let filter = match self.filter.in_farm(act) {
            Some(filter) if self.jobs.is_empty() && !self.filter.is_empty() => filter,
            Some(_) | None => {
                let each = Each {
                    act: "act",
                    whom: Whom::of(act),
                    body: &JobActRequest { act, reason },
                    line: match act {
                        JobActSpec::SetPriority(_) => words::score_line,
                        JobActSpec::Cancel
                        | JobActSpec::Supersede
                        | JobActSpec::Suspend
                        | JobActSpec::Resume
                        | JobActSpec::Retry => words::state_line,
                    },
                };
                return self.each(context, each).await;
            }
        };
        let request = BulkRequest {
            filter,
            act,
            reason,
        };
        let bulk: BulkView = context.client.post("/api/v1/bulk", &request).await?;
        let nothing = bulk.finished && bulk.matched == 0;
        if nothing {
            self.filter.matched_nothing(context).await?;
            remark(NO_MATCH);
        }
        context.output.one(&bulk, |bulk| {
            let more = if bulk.finished {
                ""
            } else {
                " so far; the farm goes on, see farmbell events -f"
            };
            if nothing {
                return String::new();
            }
            format!("{} jobs changed{more}", bulk.changed)
        })?;
        Ok(Exit::Ok)
    }

    /// Does the same with each of them. Neither one that refuses nor a reader
    /// of the output who has seen enough keeps the others from it; only a
    /// coordinator that is gone does.
    pub(super) async fn each<B: Serialize>(
        &self,
        context: &Context,
        each: Each<'_, B>,
    ) -> Result<Exit> {
        let ids = self.ids(context, each.whom).await?;
        let one = |id: String| async move {
            let path = format!("/api/v1/jobs/{}/{}", segment(&id), each.act);
            let result: Result<JobView> = context.client.post(&path, each.body).await;
            (id, result)
        };
        if let [id] = self.jobs.as_slice() {
            let (_, result) = one(id.clone()).await;
            context.output.one(&result?, each.line)?;
            return Ok(Exit::Ok);
        }
        let mut told = context.output.series();
        if ids.is_empty() {
            self.filter.matched_nothing(context).await?;
            remark(NO_MATCH);
            told.end()?;
            return Ok(Exit::Ok);
        }
        let (all, mut done) = (ids.len(), 0);
        let mut worst: Option<Failure> = None;
        let gone = Cell::new(false);
        let ids = ids.into_iter().take_while(|_| !gone.get());
        let mut results = futures_util::stream::iter(ids).map(one).buffered(AT_ONCE);
        while let Some((id, result)) = results.next().await {
            match result {
                Ok(job) => {
                    told.tell(job, each.line);
                    done += 1;
                }
                Err(failure) => {
                    remark(&format!("job {id}: {}", failure.cause));
                    // Those on the way are heard to their end.
                    gone.set(gone.get() || failure.exit == Exit::Unreachable);
                    worst = Some(match worst {
                        Some(worse) if badness(&worse) >= badness(&failure) => worse,
                        Some(_) | None => failure,
                    });
                }
            }
        }
        let written = told.end();
        remark(&format!("done with {done} of {all} jobs"));
        let exit = worst.map_or(Exit::Ok, |worst| {
            remark(&advice(&worst));
            worst.exit
        });
        match written {
            // That a reader has seen enough says nothing of the jobs.
            Err(failure) if failure.exit != Exit::Ok => Err(failure),
            Ok(()) | Err(_) => Ok(exit),
        }
    }
}

/// Which of several failures the exit code tells: that jobs were not even tried
/// is worse than any refusal.
fn badness(failure: &Failure) -> (bool, u8) {
    (failure.exit == Exit::Unreachable, failure.exit.number())
}
