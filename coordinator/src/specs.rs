//! Job specs by job, a cache in front of the store. Owns which specs stay in
//! memory; the driver puts new ones in at their commit, offers take them out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farmbell_protocol::id::JobId;
use farmbell_protocol::spec::JobSpec;

use crate::store::{Queries, QueryError};

/// Specs kept in memory: with about 1 KiB each some 4 MiB. Jobs that wait
/// longer than it takes to submit so many cost one read when they start.
const KEPT: usize = 4096;

/// Specs of the jobs that were submitted or offered last.
#[derive(Clone)]
pub struct Specs {
    queries: Arc<dyn Queries>,
    // Shared by the driver and by sessions; held for a lookup, never over a read.
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    specs: BTreeMap<JobId, Arc<JobSpec>>,
    /// In the order they came, the oldest first.
    order: VecDeque<JobId>,
}

impl std::fmt::Debug for Specs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Specs").finish_non_exhaustive()
    }
}

/// Why a spec could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("job {0} has no spec in the store; run `farmbell-coordinator check`")]
    Missing(JobId),
    #[error(transparent)]
    Store(#[from] QueryError),
}

impl Specs {
    #[must_use]
    pub fn new(queries: Arc<dyn Queries>) -> Self {
        Self {
            queries,
            kept: Arc::default(),
        }
    }

    /// The spec, if it is in memory: never blocks.
    #[must_use]
    pub fn cached(&self, job: JobId) -> Option<Arc<JobSpec>> {
        self.kept().specs.get(&job).cloned()
    }

    /// The spec, from memory or from the store. Blocks for one read at most.
    ///
    /// # Errors
    /// If the store has none or cannot be read.
    pub fn get(&self, job: JobId) -> Result<Arc<JobSpec>, SpecError> {
        if let Some(spec) = self.cached(job) {
            return Ok(spec);
        }
        let spec = self.queries.spec(job)?.ok_or(SpecError::Missing(job))?;
        self.put(job, spec.clone());
        Ok(spec)
    }

    /// Keeps a committed spec; the oldest gives way.
    pub(crate) fn put(&self, job: JobId, spec: Arc<JobSpec>) {
        let mut kept = self.kept();
        if kept.specs.insert(job, spec).is_some() {
            return;
        }
        kept.order.push_back(job);
        if kept.order.len() > KEPT
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.specs.remove(&oldest);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
