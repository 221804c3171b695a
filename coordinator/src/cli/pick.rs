//! Which jobs a command means: named ones, or all that a filter matches. Owns
//! the filter's options, for lists and for acts on many jobs alike.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use futures_util::StreamExt;
use serde::Serialize;

use super::client::segment;
use super::exit::{Exit, Failure, Result};
use super::output::remark;
use super::{Context, words};
use crate::http::wire::{
    BulkRequest, BulkView, FilterSpec, JobActRequest, JobActSpec, JobList, JobView,
};

/// Jobs asked for at a time.
const PAGE: u32 = 500;

/// Acts on the way at once: enough that they share commits, few enough that
/// other people's requests find a place.
const AT_ONCE: usize = 16;

/// Options that narrow jobs down. None: all of them.
#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
pub(super) struct Filter {
    /// waiting, assigned, running, collecting, finishing, done, or a verdict:
    /// succeeded, failed, cancelled, superseded, infrastructure; or of the failed:
    /// `dependency_wait`, `chroot_problem`
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

impl Filter {
    fn is_empty(&self) -> bool {
        self.pairs().iter().all(|(_, value)| value.is_none())
    }

    /// The same filter for the farm, which knows unfinished jobs and whole
    /// names only.
    fn in_farm(&self) -> Option<FilterSpec> {
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
            name: None,
            waiting,
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
            jobs.extend(page.jobs);
            match page.next {
                Some(next) => cursor = format!("&cursor={}", segment(&next)),
                None => return Ok(jobs),
            }
        }
    }
}

impl Pick {
    async fn ids(&self, context: &Context) -> Result<Vec<String>> {
        match (self.jobs.is_empty(), self.filter.is_empty()) {
            (false, true) => Ok(self.jobs.clone()),
            (true, false) => {
                let jobs = self.filter.jobs(context, u32::MAX).await?;
                Ok(jobs.into_iter().map(|job| job.id).collect())
            }
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

    /// Acts on them: by ids one after the other, by a filter in the farm itself,
    /// where it goes on whatever restarts.
    pub(super) async fn act(
        &self,
        context: &Context,
        act: JobActSpec,
        reason: String,
    ) -> Result<Exit> {
        let filter = match self.filter.in_farm() {
            Some(filter) if self.jobs.is_empty() && !self.filter.is_empty() => filter,
            Some(_) | None => {
                return self
                    .each(context, "act", &JobActRequest { act, reason })
                    .await;
            }
        };
        let request = BulkRequest {
            filter,
            act,
            reason,
        };
        let bulk: BulkView = context.client.post("/api/v1/bulk", &request).await?;
        context.output.one(&bulk, |bulk| {
            let more = if bulk.finished {
                ""
            } else {
                " so far; the farm goes on, see farmbell events -f"
            };
            format!("{} jobs changed{more}", bulk.changed)
        })?;
        Ok(Exit::Ok)
    }

    /// Does the same with each of them. One that refuses does not keep the
    /// others from it.
    pub(super) async fn each<B: Serialize>(
        &self,
        context: &Context,
        act: &str,
        body: &B,
    ) -> Result<Exit> {
        let ids = self.ids(context).await?;
        let one = |id: String| async move {
            let path = format!("/api/v1/jobs/{}/{act}", segment(&id));
            let result: Result<JobView> = context.client.post(&path, body).await;
            (id, result)
        };
        if let [id] = ids.as_slice() {
            let (_, result) = one(id.clone()).await;
            tell(context, &result?)?;
            return Ok(Exit::Ok);
        }
        let all = ids.len();
        let mut results = futures_util::stream::iter(ids).map(one).buffered(AT_ONCE);
        let mut worst = Exit::Ok;
        let mut done = 0;
        while let Some((id, result)) = results.next().await {
            match result {
                Ok(job) => {
                    tell(context, &job)?;
                    done += 1;
                }
                Err(failure) if failure.exit == Exit::Unreachable => return Err(failure),
                Err(failure) => {
                    remark(&format!("job {id}: {}", failure.cause));
                    worst = failure.exit;
                }
            }
        }
        remark(&format!("done with {done} of {all} jobs"));
        Ok(worst)
    }
}

fn tell(context: &Context, job: &JobView) -> Result<()> {
    context.output.item(job, words::state_line)
}
