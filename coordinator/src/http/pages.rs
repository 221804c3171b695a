//! The builders page's routes: the page itself, its files, and its sections as
//! they change. The renderer is [`crate::page`]; the live part is `live.rs`.

mod live;
mod scene;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use futures_util::Stream;
use serde::Serialize;

use super::Api;
use super::extract::Addressed;
use super::problem::{Result, internal, not_found};
use crate::page;

pub(super) use live::{Viewers, viewers};

/// One section as the page's script takes it.
#[derive(Debug, Serialize)]
struct SectionJson<'s> {
    id: &'s str,
    html: &'s str,
}

pub(super) async fn page(State(api): State<Api>) -> Result<Response> {
    let scene = scene::now(&api).await?;
    let html = scene.page().map_err(|e| internal(&e))?;
    Ok((headers(), Html(html)).into_response())
}

pub(super) async fn asset(Addressed(name): Addressed<String>) -> Result<Response> {
    let asset = page::ASSETS
        .iter()
        .find(|asset| asset.name == name)
        .ok_or_else(|| not_found(format!("there is no asset '{name}'"), "Open the page at /."))?;
    let mut headers = headers();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    Ok((headers, asset.bytes).into_response())
}

/// The page's sections: all of them first, then each as it changes.
pub(super) async fn live(
    Extension(viewers): Extension<Viewers>,
) -> Result<Sse<impl Stream<Item = std::result::Result<Event, axum::Error>> + use<>>> {
    let changes = viewers.join().await?;
    let events = changes.sections(|section| {
        Event::default().event("section").json_data(SectionJson {
            id: section.id,
            html: &section.html,
        })
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

fn headers() -> HeaderMap {
    HeaderMap::from_iter([
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(page::CONTENT_SECURITY_POLICY),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ])
}
