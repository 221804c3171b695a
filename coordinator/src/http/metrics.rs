//! `/metrics`: the figures an operator watches. Owns names, labels and the two
//! text formats. What takes time is observed from the ledger as it happens
//! (`observer.rs`); what merely stands is read at the scrape.
//!
//! Labels come from closed sets, never from jobs or builders: a farm of any
//! size has the same few series.

mod format;
mod observer;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use farmbell_farm::effect::Overview;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::problem::{Result, internal};
use super::{Api, builders, show};
use crate::bulk::Counters;
use crate::driver::{COMMIT_BOUNDS_US, CommitTimes, Health};

pub(super) use observer::{Observed, observe};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    version: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct BuilderState {
    /// What it does: `building`, or its cleanliness while it is free.
    state: String,
    link: String,
    mode: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct JobState {
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lane {
    lane: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Moved {
    what: &'static str,
}

pub(super) async fn metrics(
    State(api): State<Api>,
    Extension(observed): Extension<Observed>,
    headers: HeaderMap,
) -> Result<Response> {
    let health = api.farm.health();
    // A stalled store answers nothing, and that is when metrics matter most.
    let overview = match &health.stall {
        None => Some(builders::ask(&api).await?),
        Some(_) => None,
    };
    let mut registry = Registry::with_prefix("farmbell");
    register_health(&mut registry, &health);
    if let Some(overview) = &overview {
        register_overview(&mut registry, overview);
    }
    register_moved(&mut registry, &api.moved);
    observed.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).map_err(|e| internal(&e))?;
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let (kind, text) = match accept {
        Some(accept) if accept.contains("application/openmetrics-text") => {
            (format::OPEN_METRICS, text)
        }
        Some(_) | None => (format::PROMETHEUS, format::as_prometheus(&text)),
    };
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

fn register_health(registry: &mut Registry, health: &Health) {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
    };
    registry.register("build", "The coordinator's version", Info::new(version));
    let stalled: Gauge = Gauge::default();
    stalled.set(i64::from(health.stall.is_some()));
    registry.register("store_stalled", "1 while the store takes nothing", stalled);
    let lanes = Family::<Lane, Gauge>::default();
    for (lane, waiting) in [
        ("agents", health.agents_waiting),
        ("http", health.http_waiting),
    ] {
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        lanes.get_or_create(&Lane { lane }).set(waiting);
    }
    registry.register("lane_waiting", "Events that wait for the farm", lanes);
    registry.register(
        "events",
        "Events that the farm handled",
        ConstCounter::new(health.events),
    );
    registry.register(
        "changes",
        "Changes made durable",
        ConstCounter::new(health.changes),
    );
    registry.register_collector(Box::new(Commits(health.commits.clone())));
}

/// What came off the wire counts each time it comes; so what came and was not
/// verified was sent again, or will be.
fn register_moved(registry: &mut Registry, counters: &Counters) {
    let moved = Family::<Moved, Counter>::default();
    for (what, bytes) in [
        ("logs_received", &counters.log_bytes),
        ("artifacts_received", &counters.blob_bytes),
        ("artifacts_verified", &counters.verified_bytes),
        ("inputs_sent", &counters.input_bytes),
    ] {
        let counter = moved.get_or_create(&Moved { what });
        counter.inc_by(bytes.load(Relaxed));
    }
    registry.register_with_unit(
        "bulk",
        "Bytes that the bulk door moved since the coordinator started",
        Unit::Bytes,
        moved,
    );
}

fn register_overview(registry: &mut Registry, overview: &Overview) {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let mut jobs = BTreeMap::from([("waiting".to_owned(), number(overview.waiting))]);
    for state in ["assigned", "running", "collecting", "finishing"] {
        jobs.insert(state.to_owned(), 0);
    }
    for job in &overview.running {
        *jobs.entry(show::job(job).state).or_default() += 1;
    }
    let by_state = Family::<JobState, Gauge>::default();
    for (state, count) in jobs {
        by_state.get_or_create(&JobState { state }).set(count);
    }
    registry.register("jobs", "Unfinished jobs", by_state);

    let builders = Family::<BuilderState, Gauge>::default();
    for builder in &overview.builders {
        let view = show::builder(builder);
        let label = BuilderState {
            state: view
                .held
                .map_or(view.cleanliness, |_| "building".to_owned()),
            link: view.link,
            mode: view.mode,
        };
        builders.get_or_create(&label).inc();
    }
    registry.register("builders", "Builders by what they do", builders);

    let suspect: Gauge = Gauge::default();
    suspect.set(i64::from(overview.suspect));
    registry.register(
        "suspect",
        "1 while a restored store waits for an operator",
        suspect,
    );
    let oldest: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default();
    oldest.set(std::time::Duration::from_millis(overview.oldest_waiting_ms).as_secs_f64());
    registry.register_with_unit(
        "queue_oldest",
        "How long the oldest waiting job has waited",
        Unit::Seconds,
        oldest,
    );
}

/// The driver's own histogram, as it is at the scrape.
#[derive(Debug)]
struct Commits(CommitTimes);

impl Collector for Commits {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let bounds = COMMIT_BOUNDS_US
            .iter()
            .map(|us| std::time::Duration::from_micros(*us).as_secs_f64());
        let buckets: Vec<_> = bounds
            .chain([f64::INFINITY])
            .zip(self.0.counts.iter().copied())
            .collect();
        let sum = std::time::Duration::from_micros(self.0.sum_us).as_secs_f64();
        let count = self.0.counts.iter().sum();
        let mut encoder = encoder.encode_descriptor(
            "store_commit",
            "How long commits took",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}
