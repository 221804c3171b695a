//! The event stream: the ledger as NDJSON or, if `Accept` asks for it, as
//! server-sent events. Owns the joining of what is stored and what happens
//! now, with no entry twice and none missing.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use farmbell_farm::record::LedgerEntry;
use farmbell_protocol::bounded::Text;
use futures_util::stream::try_unfold;
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::caller::Caller;
use super::extract::Asked;
use super::problem::Result;
use super::wire::Problem;
use super::{Api, show};
use crate::store::Queries;

/// Entries read from the store at a time.
const PAGE: u32 = 500;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EventsQuery {
    /// Begin behind the entry with this number.
    after: Option<u64>,
    /// Begin this many entries before the end.
    tail: Option<u64>,
    follow: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Ndjson,
    ServerSent,
}

/// Where a reading ends.
enum End {
    /// With the entry that was the newest when it was asked for, whatever
    /// happens while it is read.
    At(u64),
    Never(Receiver<LedgerEntry>),
}

/// A reader's place between the stored entries and those to come.
struct Reading {
    api: Api,
    after: u64,
    end: End,
    /// The store has been read to the end that it had then.
    caught_up: bool,
    form: Form,
    sees_private: bool,
}

pub(super) async fn events(
    State(api): State<Api>,
    caller: Caller,
    Asked(query): Asked<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let follow = matches!(query.follow.as_deref(), Some("" | "1" | "true"));
    // Before the store is read, or what happens in between would be missed.
    let live = follow.then(|| api.farm.ledger());
    let newest = api.read(|queries| queries.ledger_end()).await?;
    let after = match (last_event_id(&headers).or(query.after), query.tail) {
        (Some(after), _) => after,
        (None, Some(tail)) => newest.saturating_sub(tail),
        (None, None) => 0,
    };
    let form = match headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
    {
        Some(accept) if accept.contains("text/event-stream") => Form::ServerSent,
        Some(_) | None => Form::Ndjson,
    };
    let reading = Reading {
        api,
        after,
        end: live.map_or(End::At(newest), End::Never),
        caught_up: false,
        form,
        sees_private: caller.sees_private(),
    };
    let stream = try_unfold(reading, |mut reading| async move {
        let piece = reading.next().await.map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>(piece.map(|piece| (piece, reading)))
    });
    Ok((self::headers(form, after), Body::from_stream(stream)).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

impl End {
    /// Leaves of a stored page what belongs to the reading; whether the store
    /// has no more of it.
    fn takes_last_of(&self, page: &mut Vec<LedgerEntry>) -> bool {
        let read = page.len();
        if let Self::At(end) = self {
            page.retain(|entry| entry.seq <= *end);
        }
        read < PAGE as usize || page.len() < read
    }
}

impl Reading {
    /// The next entries in the form asked for; `None` at the end.
    async fn next(&mut self) -> std::result::Result<Option<Bytes>, Problem> {
        loop {
            if !self.caught_up {
                let after = self.after;
                let mut page = self
                    .api
                    .read(move |queries| queries.ledger(after, PAGE))
                    .await?;
                self.caught_up = self.end.takes_last_of(&mut page);
                if !page.is_empty() {
                    return self.take(page).await.map(Some);
                }
                continue;
            }
            let End::Never(live) = &mut self.end else {
                return Ok(None);
            };
            match live.recv().await {
                Ok(entry) if entry.seq <= self.after => {}
                Ok(entry) if entry.seq == self.after + 1 => {
                    return self.take(vec![entry]).await.map(Some);
                }
                // Entries were passed over: the store has them.
                Ok(_) | Err(RecvError::Lagged(_)) => self.caught_up = false,
                Err(RecvError::Closed) => return Ok(None),
            }
        }
    }

    async fn take(&mut self, mut entries: Vec<LedgerEntry>) -> std::result::Result<Bytes, Problem> {
        if !self.sees_private {
            entries = self.without_private(entries).await?;
        }
        let mut text = String::new();
        for entry in &entries {
            self.after = entry.seq;
            let json = serde_json::to_string(&show::event(entry))
                .expect("an entry's view has string keys only");
            match self.form {
                Form::Ndjson => text.push_str(&format!("{json}\n")),
                Form::ServerSent => text.push_str(&format!(
                    "id: {}\nevent: {}\ndata: {json}\n\n",
                    entry.seq,
                    entry.kind.as_str()
                )),
            }
        }
        Ok(Bytes::from(text))
    }

    /// Mere readers learn that something happened to a private job, not what:
    /// the numbers stay without gaps.
    async fn without_private(
        &self,
        entries: Vec<LedgerEntry>,
    ) -> std::result::Result<Vec<LedgerEntry>, Problem> {
        let mask = move |queries: &dyn Queries| {
            let mut entries = entries;
            for entry in &mut entries {
                let Some(job) = entry.job else { continue };
                if queries.job(job)?.is_some_and(|job| job.private) {
                    (entry.why, entry.by) = (Text::default(), Text::default());
                }
            }
            Ok(entries)
        };
        self.api.read(mask).await
    }
}

fn headers(form: Form, after: u64) -> HeaderMap {
    let kind = match form {
        Form::Ndjson => "application/x-ndjson",
        Form::ServerSent => "text/event-stream",
    };
    let mut headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]);
    // A proxy that collects the stream would hold it back for ever.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert("x-events-after", HeaderValue::from(after));
    headers
}

#[cfg(test)]
mod tests {
    use farmbell_farm::record::LedgerKind;
    use farmbell_protocol::time::Wall;

    use super::*;

    fn page(first: u64, entries: u64) -> Vec<LedgerEntry> {
        let entry = |seq| LedgerEntry {
            seq,
            at: Wall(seq),
            kind: LedgerKind::AgentLinked,
            job: None,
            attempt: None,
            builder: None,
            agent: None,
            by: Text::default(),
            why: Text::default(),
        };
        (first..first + entries).map(entry).collect()
    }

    #[test]
    fn what_happens_while_it_is_read_is_not_part_of_a_reading() {
        let mut one_more = page(10, 2);
        assert!(End::At(10).takes_last_of(&mut one_more));
        assert_eq!(one_more.len(), 1);
        let mut whole = page(1, u64::from(PAGE));
        assert!(!End::At(1_000).takes_last_of(&mut whole));
        assert_eq!(whole.len(), PAGE as usize);
    }
}
