//! `/healthz`: whether the farm accepts and decides, for whatever restarts or
//! alarms. 200 while it does, 503 while its store takes nothing.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Api;
use super::wire::{HealthView, Stamp};

pub(super) async fn healthz(State(api): State<Api>) -> (StatusCode, Json<HealthView>) {
    let health = api.farm.health();
    let status = match health.stall {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let view = HealthView {
        ok: health.stall.is_none(),
        stalled_since: health.stall.as_ref().map(|stall| Stamp(stall.since.0)),
        stalled_why: health.stall.map(|stall| stall.why),
        agents_waiting: health.agents_waiting as u64,
        http_waiting: health.http_waiting as u64,
        events: health.events,
        changes: health.changes,
    };
    (status, Json(view))
}
