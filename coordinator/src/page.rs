//! The builders page: one look at the whole farm. Owns what it shows and in
//! which words; never asks the farm (the HTTP side hands it one moment's
//! [`Scene`]) and never sends anything.
//!
//! The page is whole without JavaScript. With it, the same sections arrive
//! again by name when something changed, and replace themselves. Everything
//! that strangers wrote is washed by [`inert`] and then escaped by the
//! templates; no style or script stands in the document itself.

use askama::Template;

use crate::http::wire::{BuilderView, JobView, OverviewView, Stamp, VerdictView};
use crate::inert;

/// The headers every page is sent with: nothing but this server's own files.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; \
     script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

/// The page's own files, by the name they are asked for.
pub const ASSETS: &[Asset] = &[
    Asset {
        name: "farmbell.css",
        kind: "text/css; charset=utf-8",
        bytes: include_bytes!("../assets/farmbell.css"),
    },
    Asset {
        name: "farmbell.js",
        kind: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../assets/farmbell.js"),
    },
];

#[derive(Clone, Copy, Debug)]
pub struct Asset {
    pub name: &'static str,
    pub kind: &'static str,
    pub bytes: &'static [u8],
}

/// Everything the page shows, from one moment after a commit.
#[derive(Debug)]
pub struct Scene {
    pub now: Stamp,
    pub overview: OverviewView,
    /// Why the first waiting jobs wait: one sentence each, in the queue's order.
    pub reasons: Vec<String>,
    /// The ends of the running jobs' logs, in the overview's order.
    pub tails: Vec<Vec<u8>>,
    /// Jobs with a verdict, newest first.
    pub recent: Vec<JobView>,
}

/// A section of the page that replaces itself.
#[derive(Debug)]
pub struct Section {
    /// The element's id.
    pub id: &'static str,
    pub html: String,
}

impl Scene {
    /// The whole page.
    ///
    /// # Errors
    /// If a template cannot be written, which means memory is short.
    pub fn page(&self) -> askama::Result<String> {
        Page { sections: &self.sections()?, now: self.now }.render()
    }

    /// Its sections in the order they stand.
    ///
    /// # Errors
    /// As [`page`](Self::page).
    pub fn sections(&self) -> askama::Result<Vec<Section>> {
        Ok(vec![
            Section { id: "summary", html: Summary { scene: self }.render()? },
            Section { id: "builders", html: Builders { rows: self.builder_rows() }.render()? },
            Section { id: "running", html: Running { rows: self.running_rows() }.render()? },
            Section { id: "queue", html: self.queue().render()? },
            Section { id: "verdicts", html: Verdicts { rows: self.verdict_rows() }.render()? },
        ])
    }

    fn up(&self) -> usize {
        self.overview.builders.iter().filter(|builder| builder.link == "online").count()
    }

    fn builder_rows(&self) -> Vec<BuilderRow<'_>> {
        let running = &self.overview.running;
        self.overview
            .builders
            .iter()
            .map(|builder| {
                let held = builder.held.as_ref();
                let job = held.and_then(|held| running.iter().find(|job| job.id == held.job));
                BuilderRow { builder, mood: mood_of(builder), job: job.map(title) }
            })
            .collect()
    }

    fn running_rows(&self) -> Vec<RunningRow<'_>> {
        let tails = self.tails.iter().map(Some).chain(std::iter::repeat(None));
        self.overview
            .running
            .iter()
            .zip(tails)
            .map(|(job, tail)| RunningRow {
                job,
                title: title(job),
                elapsed: job.started.map(|since| span(since.until_ms(self.now))),
                tail: match tail {
                    Some(tail) if !job.private => inert::lines(tail),
                    _ => String::new(),
                },
            })
            .collect()
    }

    fn queue(&self) -> Queue<'_> {
        let reasons = self.reasons.iter().map(String::as_str).chain(std::iter::repeat(""));
        let rows: Vec<_> = self
            .overview
            .queue
            .iter()
            .zip(reasons)
            .map(|(job, why)| QueueRow {
                job,
                title: title(job),
                waited: span(job.submitted.until_ms(self.now)),
                why: inert::line(why).into_owned(),
            })
            .collect();
        let more = self.overview.waiting.saturating_sub(rows.len() as u64);
        Queue { rows, more }
    }

    fn verdict_rows(&self) -> Vec<VerdictRow<'_>> {
        self.recent
            .iter()
            .filter_map(|job| {
                let verdict = job.verdict.as_ref()?;
                let ago = span(verdict.at.until_ms(self.now));
                Some(VerdictRow { job, title: title(job), verdict, ago })
            })
            .collect()
    }
}

/// What a job is called here; a private one keeps its name to itself.
fn title(job: &JobView) -> String {
    if job.private {
        return "a private job".to_owned();
    }
    let name = inert::line(&job.name);
    if job.version.is_empty() { name.into_owned() } else { format!("{name} {}", inert::line(&job.version)) }
}

/// The one thing about a builder that its colour and letter show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Building,
    Idle,
    Cleaning,
    Aside,
    Away,
    Broken,
}

fn mood_of(builder: &BuilderView) -> Mood {
    if builder.link != "online" {
        Mood::Away
    } else if builder.mode == "quarantined" || builder.fitness != "fit" || builder.reset.trouble.is_some() {
        Mood::Broken
    } else if builder.held.is_some() {
        Mood::Building
    } else if builder.mode != "enabled" {
        Mood::Aside
    } else if builder.cleanliness == "clean" {
        Mood::Idle
    } else {
        Mood::Cleaning
    }
}

impl Mood {
    const fn class(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Idle => "idle",
            Self::Cleaning => "cleaning",
            Self::Aside => "aside",
            Self::Away => "away",
            Self::Broken => "broken",
        }
    }

    /// For who cannot tell the colours apart.
    const fn letter(self) -> &'static str {
        match self {
            Self::Building => "B",
            Self::Idle => "I",
            Self::Cleaning => "C",
            Self::Aside => "–",
            Self::Away => "×",
            Self::Broken => "!",
        }
    }
}

/// A span of time in the two largest units that say something.
fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    sections: &'a [Section],
    now: Stamp,
}

#[derive(Template)]
#[template(path = "summary.html")]
struct Summary<'a> {
    scene: &'a Scene,
}

#[derive(Template)]
#[template(path = "builders.html")]
struct Builders<'a> {
    rows: Vec<BuilderRow<'a>>,
}

struct BuilderRow<'a> {
    builder: &'a BuilderView,
    mood: Mood,
    job: Option<String>,
}

#[derive(Template)]
#[template(path = "running.html")]
struct Running<'a> {
    rows: Vec<RunningRow<'a>>,
}

struct RunningRow<'a> {
    job: &'a JobView,
    title: String,
    elapsed: Option<String>,
    tail: String,
}

#[derive(Template)]
#[template(path = "queue.html")]
struct Queue<'a> {
    rows: Vec<QueueRow<'a>>,
    more: u64,
}

struct QueueRow<'a> {
    job: &'a JobView,
    title: String,
    waited: String,
    why: String,
}

#[derive(Template)]
#[template(path = "verdicts.html")]
struct Verdicts<'a> {
    rows: Vec<VerdictRow<'a>>,
}

struct VerdictRow<'a> {
    job: &'a JobView,
    title: String,
    verdict: &'a VerdictView,
    ago: String,
}
