//! Retrying many. Owns the operation that begins a new generation of every
//! finished job which a filter means: in bounded steps with a durable cursor,
//! each job by the rules of a retry by itself. The farm forgets finished jobs,
//! so the coordinator searches the store, a step's worth at a time, and tells.
//!
//! ```text
//! asked, with what was found first ─► retried ─► search (effect) ─► found (event) ─► retried … ─► over
//! ```
//! Invariant: a step's jobs are retried once. Its cursor is in the same batch
//! as their generations, and what was found from another cursor counts for
//! nothing.

use std::time::Duration;

use farmbell_protocol::bounded::Text;
use farmbell_protocol::id::JobId;
use farmbell_protocol::time::Time;

use crate::bulk::BULK_STEP;
use crate::effect::{Effect, Refused, Reply, Search};
use crate::event::{Ending, Found};
use crate::farm::Farm;
use crate::record::{BulkAct, BulkRecord, Filter, JobRecord};
use crate::submit::suspect;

/// When a search that was not answered is asked for again: the store may have
/// failed to read.
const SEARCH_AGAIN: Duration = Duration::from_secs(30);

impl Search {
    /// The one that whoever asks for retries makes first.
    #[must_use]
    pub fn first(filter: Filter) -> Self {
        Self {
            filter,
            after: JobId(0),
            last: JobId(u64::MAX),
            most: BULK_STEP,
        }
    }
}

impl Farm {
    pub(crate) fn retry_all(
        &mut self,
        by: &Text<128>,
        filter: Filter,
        found: &Found,
        why: &Text<256>,
    ) -> Result<Reply, Refused> {
        if self.meta.suspect.is_some() {
            return Err(suspect());
        }
        self.has_room_for_bulk()?;
        let bulk = self.begun(by, filter, BulkAct::Retry, why);
        let bulk = self.retry_found(bulk, found);
        Ok(self.bulk_reply(&bulk))
    }

    /// What a search found.
    pub(crate) fn found(&mut self, operation: u64, found: &Found) {
        let Some(bulk) = self.bulk.get(&operation) else {
            return;
        };
        // A suspect farm starts nothing; the store is searched again later.
        if bulk.cursor != found.after || self.meta.suspect.is_some() {
            return;
        }
        let bulk = bulk.clone();
        self.retry_found(bulk, found);
    }

    fn retry_found(&mut self, mut bulk: BulkRecord, found: &Found) -> BulkRecord {
        let before = bulk.cursor;
        for job in &found.jobs {
            bulk.matched += 1;
            if may_run_again(job, &bulk.filter) && self.retry(&bulk.by, job, &bulk.why).is_ok() {
                bulk.changed += 1;
            }
        }
        bulk.cursor = found.next.unwrap_or(bulk.last);
        self.keep_bulk(&bulk, before, found.next.is_none());
        if found.next.is_some() {
            self.search(&bulk);
        }
        bulk
    }

    /// Looks for more of it, unless that was asked for lately.
    pub(crate) fn search_if_due(&mut self, bulk: &BulkRecord) {
        if self.search_due(bulk.id) <= self.clock.now() {
            self.search(bulk);
        }
    }

    fn search(&mut self, bulk: &BulkRecord) {
        let again = self.clock.now() + SEARCH_AGAIN;
        self.searches.insert(bulk.id, again);
        self.step.effects.push(Effect::Search {
            operation: bulk.id,
            search: Search {
                filter: bulk.filter.clone(),
                after: bulk.cursor,
                last: bulk.last,
                most: BULK_STEP,
            },
        });
    }

    /// When the store is searched for this operation, at once after a start.
    pub(crate) fn search_due(&self, operation: u64) -> Time {
        let asked = self.searches.get(&operation);
        asked.copied().unwrap_or_else(|| self.clock.now())
    }
}

/// Something newer took the place of a superseded job: whoever wants it all
/// the same says so. One that waited for packages then has its verdict from
/// before.
fn may_run_again(job: &JobRecord, filter: &Filter) -> bool {
    let superseded = job.cancel.as_ref().is_some_and(|wish| wish.superseded);
    !superseded || filter.verdict == Some(Ending::Superseded)
}
