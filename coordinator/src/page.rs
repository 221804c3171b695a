//! The builders page: one look at the whole farm. Owns what it shows and in
//! which words; never asks the farm (the HTTP side hands it one moment's
//! [`Scene`]) and never sends anything.
//!
//! The page is whole without JavaScript. With it, the same sections arrive
//! again by name when something changed, and replace themselves. Everything
//! that strangers wrote is washed by [`inert`] and then escaped by the
//! templates; no style or script stands in the document itself.

mod attention;

use askama::Template;

use crate::http::wire::{BuilderView, JobView, OverviewView, SetBrake, Stamp, VerdictView};
use crate::inert;
use attention::{Trouble, troubles};

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
#[derive(Clone, Debug)]
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
        Page {
            sections: &self.sections()?,
            now: self.now,
        }
        .render()
    }

    /// Its sections in the order they stand.
    ///
    /// # Errors
    /// As [`page`](Self::page).
    pub fn sections(&self) -> askama::Result<Vec<Section>> {
        Ok(vec![
            Section {
                id: "summary",
                html: Summary {
                    scene: self,
                    troubles: troubles(&self.overview, self.now),
                }
                .render()?,
            },
            Section {
                id: "builders",
                html: Builders {
                    rows: self.builder_rows(),
                }
                .render()?,
            },
            Section {
                id: "running",
                html: Running {
                    rows: self.running_rows(),
                }
                .render()?,
            },
            Section {
                id: "queue",
                html: self.queue().render()?,
            },
            Section {
                id: "verdicts",
                html: Verdicts {
                    rows: self.verdict_rows(),
                }
                .render()?,
            },
        ])
    }

    fn oldest(&self) -> String {
        match self.overview.waiting {
            0 => "–".to_owned(),
            _ => span(self.overview.oldest_waiting_ms),
        }
    }

    fn up(&self) -> usize {
        self.overview
            .builders
            .iter()
            .filter(|builder| builder.link == "online")
            .count()
    }

    fn builder_rows(&self) -> Vec<BuilderRow<'_>> {
        let running = &self.overview.running;
        self.overview
            .builders
            .iter()
            .map(|builder| {
                let held = builder.held.as_ref();
                let job = held.and_then(|held| running.iter().find(|job| job.id == held.job));
                BuilderRow {
                    builder,
                    mood: mood_of(builder),
                    job: job.map(title),
                }
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
        let reasons = self
            .reasons
            .iter()
            .map(String::as_str)
            .chain(std::iter::repeat(""));
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
        let held = self.overview.held;
        let more = self
            .overview
            .waiting
            .saturating_sub(held + rows.len() as u64);
        Queue {
            rows,
            more,
            held,
            brakes: &self.overview.brakes,
        }
    }

    fn verdict_rows(&self) -> Vec<VerdictRow<'_>> {
        self.recent
            .iter()
            .filter_map(|job| {
                let verdict = job.verdict.as_ref()?;
                let ago = span(verdict.at.until_ms(self.now));
                Some(VerdictRow {
                    job,
                    title: title(job),
                    verdict,
                    ago,
                })
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
    if job.version.is_empty() {
        name.into_owned()
    } else {
        format!("{name} {}", inert::line(&job.version))
    }
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
    } else if builder.mode == "quarantined"
        || builder.fitness != "fit"
        || builder.reset.trouble.is_some()
    {
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
    troubles: Vec<Trouble>,
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
    held: u64,
    brakes: &'a [SetBrake],
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::{Occupant, ResetView};

    pub(super) fn builder(name: &str) -> BuilderView {
        BuilderView {
            id: 1,
            name: name.to_owned(),
            agent: "host".to_owned(),
            status: "building".to_owned(),
            link: "online".to_owned(),
            link_since: Stamp(0),
            cleanliness: "dirty".to_owned(),
            held: Some(Occupant {
                job: "abcdefgh".to_owned(),
                attempt: "abcdefgh.1.1".to_owned(),
            }),
            mode: "enabled".to_owned(),
            mode_why: String::new(),
            drain_ends: None,
            mode_by: String::new(),
            mode_since: Stamp(0),
            fitness: "fit".to_owned(),
            fitness_why: String::new(),
            strikes: 0,
            recipes: Vec::new(),
            architectures: vec!["amd64".to_owned()],
            open_tags: vec!["<b>tag</b>".to_owned()],
            restricted_tags: Vec::new(),
            virtualized: false,
            rung: "process".to_owned(),
            memory_bytes: 0,
            disk_bytes: 0,
            reset: ResetView {
                scope: "workspace".to_owned(),
                spool_survives: true,
                when: "after".to_owned(),
                reporter: None,
                nonce: None,
                trouble: None,
            },
            host_lacks: Vec::new(),
        }
    }

    fn job(name: &str, private: bool) -> JobView {
        JobView {
            id: "abcdefgh".to_owned(),
            submission: "sabcdefgh".to_owned(),
            name: name.to_owned(),
            version: String::new(),
            recipe: "command".to_owned(),
            architecture: "amd64".to_owned(),
            owner: "kim".to_owned(),
            private,
            priority: 0,
            tags: Vec::new(),
            submitted: Stamp(0),
            state: "running".to_owned(),
            generation: 1,
            attempts: 1,
            attempts_max: 3,
            builder: Some("b1".to_owned()),
            started: Some(Stamp(1_000)),
            cancel: None,
            suspended: false,
            verdict: None,
        }
    }

    pub(super) fn overview(builder: BuilderView) -> OverviewView {
        OverviewView {
            epoch: "1".to_owned(),
            suspect: false,
            builders: vec![builder],
            queue: Vec::new(),
            waiting: 0,
            held: 0,
            brakes: Vec::new(),
            oldest_waiting_ms: 0,
            running: Vec::new(),
        }
    }

    fn scene(name: &str, private: bool, tail: &[u8]) -> Scene {
        Scene {
            now: Stamp(66_000),
            overview: OverviewView {
                running: vec![job(name, private)],
                ..overview(builder(name))
            },
            reasons: Vec::new(),
            tails: vec![tail.to_vec()],
            recent: Vec::new(),
        }
    }

    #[test]
    fn what_strangers_wrote_is_inert() {
        let hostile = "<script>alert(1)</script>\u{202e}\u{1b}]0;owned\u{7}";
        let tail = b"\x1b[31m<img src=x onerror=alert(1)>\x1b]52;c;AAAA\x07\0\n";
        let html = scene(hostile, false, tail).page().unwrap();
        assert!(
            !html.contains("<script>alert") && !html.contains("<img"),
            "{html}"
        );
        assert!(!html.contains("<b>tag"), "{html}");
        for bad in ['\u{1b}', '\u{7}', '\0', '\u{202e}'] {
            assert!(!html.contains(bad), "{bad:?} in {html}");
        }
    }

    #[test]
    fn a_running_job_shows_how_long_and_the_end_of_its_log() {
        let html = scene("hello", false, b"make: done\n").page().unwrap();
        assert!(
            html.contains("1 min 5 s") && html.contains("make: done"),
            "{html}"
        );
    }

    #[test]
    fn a_private_job_keeps_its_name_and_its_log_to_itself() {
        let html = scene("secret-project", true, b"secret log")
            .sections()
            .unwrap();
        let running = &html
            .iter()
            .find(|section| section.id == "running")
            .unwrap()
            .html;
        assert!(!running.contains("secret"), "{running}");
        assert!(running.contains("a private job"), "{running}");
    }

    #[test]
    fn two_commands_are_told_in_their_order() {
        let mut scene = scene("b1", false, b"");
        scene.overview.builders[0].mode = "quarantined".to_owned();
        scene.overview.builders[0].reset.trouble = Some("rm: no".to_owned());
        let html = scene.page().unwrap();
        let both = "<code>farmbell builder reset b1 --reason WHY</code>, and once it is clean \
                    <code>farmbell builder resume b1 --reason WHY</code></li>";
        assert!(html.contains(both), "{html}");
    }

    #[test]
    fn what_is_held_back_is_no_empty_queue() {
        let mut scene = scene("x", false, b"");
        let queue = |scene: &Scene| scene.queue().render().unwrap();
        assert!(queue(&scene).contains("Nothing waits."));
        (scene.overview.waiting, scene.overview.held) = (3, 3);
        let told = queue(&scene);
        assert!(
            told.contains("<p>3 held back (suspended or below the brake)"),
            "{told}"
        );
        assert!(!told.contains("more.") && !told.contains("Nothing waits."));
        assert!(!told.contains("do not start"), "{told}");
        scene.overview.brakes = vec![SetBrake {
            architecture: Some("riscv64".to_owned()),
            least: 50,
        }];
        let told = queue(&scene);
        let brake = "<p>A brake is set: on riscv64, jobs below 50 do not start. To lift it: \
                     <code>farmbell brake --lift --arch riscv64</code></p>";
        assert!(told.contains(brake), "{told}");
        scene.overview.queue = vec![job("hello", false)];
        scene.overview.waiting = 9;
        let told = queue(&scene);
        assert!(
            told.contains("and 5 more.") && told.contains("<p>3 held back"),
            "{told}"
        );
    }

    #[test]
    fn an_empty_farm_says_what_to_type() {
        let mut scene = scene("x", false, b"");
        scene.overview.builders.clear();
        scene.overview.running.clear();
        assert!(scene.page().unwrap().contains("farmbell token create"));
    }
}
