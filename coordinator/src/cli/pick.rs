//! Which jobs a command means: named ones, or all that a filter matches. Owns
//! the filter's options, for lists and for acts on many jobs alike.

use clap::Args;
use futures_util::StreamExt;

use super::Context;
use super::client::segment;
use super::exit::{Exit, Failure, Result};
use super::output::remark;
use crate::http::wire::{Act, JobList, JobView};

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
    /// succeeded, failed, cancelled, superseded, infrastructure
    #[arg(long)]
    pub(super) state: Option<String>,
    #[arg(long, value_name = "NAME")]
    pub(super) owner: Option<String>,
    #[arg(long, value_name = "ARCH")]
    pub(super) arch: Option<String>,
    /// Jobs whose name begins so
    #[arg(long)]
    pub(super) name: Option<String>,
    /// The jobs of one submission
    #[arg(long, value_name = "ID")]
    pub(super) submission: Option<String>,
}

/// Jobs by name or by filter, never by accident all of them.
#[derive(Args, Clone, Debug)]
pub(super) struct Pick {
    /// Ids of jobs, or the beginnings of them
    jobs: Vec<String>,
    #[command(flatten)]
    filter: Filter,
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.pairs().iter().all(|(_, value)| value.is_none())
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

    /// Does the same with each of them. One that refuses does not keep the
    /// others from it.
    pub(super) async fn each(&self, context: &Context, act: &str, body: &Act) -> Result<Exit> {
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
        remark(&format!("{act}: {done} of {all} jobs"));
        Ok(worst)
    }
}

fn tell(context: &Context, job: &JobView) -> Result<()> {
    context.output.item(job, super::jobs::state_line)
}
