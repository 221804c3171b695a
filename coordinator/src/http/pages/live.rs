//! The page as it changes: one task renders for all who look, however many.
//! Owns when: after something happened, never on a clock, and at most once per
//! [`PACE`], so that a busy farm costs a render every half second and not one
//! per event. While nobody looks it sleeps.
//!
//! ```text
//!  asleep ──first viewer──▶ render ──▶ wait for ledger or log ──▶ pause PACE ─┐
//!    ▲                        ▲────────────────────────────────────────────────┘
//!    └──last viewer left── (any wait)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farmbell_farm::record::LedgerEntry;
use farmbell_protocol::id::AttemptId;
use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{Stream, future::BoxFuture};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::scene;
use crate::driver::{DriverGone, Unavailable};
use crate::http::problem::{Result, internal};
use crate::http::{Api, blocking, builders};
use crate::logs::Follow;
use crate::page::Section;

/// At least this long between two renders.
const PACE: Duration = Duration::from_millis(500);
/// Viewers that may wait to be let in: the renderer takes them at once, except
/// while it renders.
const JOINING: usize = 64;

type Sections = Arc<Vec<Section>>;

/// The way to the renderer.
#[derive(Clone, Debug)]
pub(in crate::http) struct Viewers {
    joining: mpsc::Sender<oneshot::Sender<watch::Receiver<Sections>>>,
}

/// The renderer, to be run.
pub(in crate::http) struct Live {
    joining: mpsc::Receiver<oneshot::Sender<watch::Receiver<Sections>>>,
}

/// One viewer's place.
pub(super) struct Changes {
    rendered: watch::Receiver<Sections>,
    seen: BTreeMap<&'static str, String>,
    unsent: Vec<Section>,
}

pub(in crate::http) fn viewers() -> (Viewers, Live) {
    let (sender, joining) = mpsc::channel(JOINING);
    (Viewers { joining: sender }, Live { joining })
}

impl Viewers {
    pub(super) async fn join(&self) -> Result<Changes> {
        let gone = |_| Unavailable::Gone(DriverGone);
        let (sender, place) = oneshot::channel();
        self.joining.send(sender).await.map_err(|_| gone(()))?;
        let mut rendered = place.await.map_err(|_| gone(()))?;
        rendered.mark_changed();
        Ok(Changes {
            rendered,
            seen: BTreeMap::new(),
            unsent: Vec::new(),
        })
    }
}

impl Changes {
    /// Every section that differs from what this viewer has seen.
    pub(super) fn sections<T>(self, shape: impl Fn(&Section) -> T) -> impl Stream<Item = T> {
        let stream = futures_util::stream::unfold(self, |mut changes| async move {
            loop {
                if let Some(section) = changes.unsent.pop() {
                    return Some((section, changes));
                }
                changes.rendered.changed().await.ok()?;
                changes.compare();
            }
        });
        stream.map(move |section| shape(&section))
    }

    fn compare(&mut self) {
        let rendered = self.rendered.borrow_and_update().clone();
        for section in rendered.iter().rev() {
            if self.seen.get(section.id) != Some(&section.html) {
                self.seen.insert(section.id, section.html.clone());
                self.unsent.push(section.clone());
            }
        }
    }
}

impl Live {
    /// Renders for whoever looks, until no viewer can come any more.
    pub(in crate::http) async fn run(mut self, api: Api) {
        while let Some(first) = self.joining.recv().await {
            if let Err(problem) = self.show(&api, first).await {
                // Viewers are cut off and come back by themselves.
                tracing::warn!(error = %problem, "the live page stopped");
            }
        }
    }

    /// From the first viewer to the last.
    async fn show(
        &mut self,
        api: &Api,
        first: oneshot::Sender<watch::Receiver<Sections>>,
    ) -> Result<()> {
        let mut news = News::new(api);
        let (rendered, _) = watch::channel(Sections::default());
        let mut waiting = vec![first];
        loop {
            rendered.send_replace(news.render(api).await?);
            for viewer in waiting.drain(..) {
                // Who left in the meantime needs no place.
                drop(viewer.send(rendered.subscribe()));
            }
            tokio::time::sleep(PACE).await;
            tokio::select! {
                () = rendered.closed() => return Ok(()),
                Some(viewer) = self.joining.recv() => waiting.push(viewer),
                alive = news.wait() => if !alive { return Ok(()) },
            }
        }
    }
}

/// What may change the page: the ledger, and the logs that it shows.
struct News {
    ledger: broadcast::Receiver<LedgerEntry>,
    followed: BTreeMap<AttemptId, oneshot::Sender<()>>,
    logs: FuturesUnordered<BoxFuture<'static, (AttemptId, Option<Follow>)>>,
}

impl News {
    fn new(api: &Api) -> Self {
        Self {
            ledger: api.farm.ledger(),
            followed: BTreeMap::new(),
            logs: FuturesUnordered::new(),
        }
    }

    async fn render(&mut self, api: &Api) -> Result<Sections> {
        // What happened up to here is in the overview asked for next.
        self.ledger = api.farm.ledger();
        let overview = builders::ask(api).await?;
        let shown: Vec<_> = scene::attempts(&overview.running)
            .into_iter()
            .take(scene::TAILS)
            .flatten()
            .collect();
        self.follow(api, &shown).await?;
        let scene = scene::of(api, &overview).await?;
        Ok(Arc::new(scene.sections().map_err(|e| internal(&e))?))
    }

    /// Follows the logs of exactly these attempts.
    async fn follow(&mut self, api: &Api, shown: &[AttemptId]) -> Result<()> {
        self.followed.retain(|attempt, _| shown.contains(attempt));
        for attempt in shown {
            if self.followed.contains_key(attempt) {
                continue;
            }
            let attempt = *attempt;
            let follow = follow_end(api, attempt).await?;
            let (keep, mut dropped) = oneshot::channel();
            self.followed.insert(attempt, keep);
            self.logs.push(Box::pin(async move {
                tokio::select! {
                    follow = more(follow) => (attempt, follow),
                    _ = &mut dropped => (attempt, None),
                }
            }));
        }
        Ok(())
    }

    /// Returns when something happened; false when nothing can any more.
    async fn wait(&mut self) -> bool {
        loop {
            tokio::select! {
                entry = self.ledger.recv() => {
                    return !matches!(entry, Err(broadcast::error::RecvError::Closed));
                }
                Some((attempt, follow)) = self.logs.next() => {
                    if follow.is_some() {
                        self.followed.remove(&attempt);
                        return true;
                    }
                }
            }
        }
    }
}

/// The log from its present end on.
async fn follow_end(api: &Api, attempt: AttemptId) -> Result<Follow> {
    let logs = api.logs.clone();
    let follow = blocking(move || {
        let length = logs.extent(attempt)?.length;
        logs.follow(attempt, length)
    });
    follow.await?.map_err(|e| internal(&e))
}

/// Waits until the log has more; none when it ended.
async fn more(mut follow: Follow) -> Option<Follow> {
    match follow.next().await {
        Ok(Some(_)) => Some(follow),
        Ok(None) => None,
        Err(e) => {
            tracing::warn!(error = %e, "a log shown on the page cannot be read");
            None
        }
    }
}
