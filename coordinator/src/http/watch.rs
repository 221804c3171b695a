//! Waiting for the farm: long requests are answered by the ledger, never by
//! asking again after a while.
//!
//! Use: make a [`Watch`], read the store, and if that is not what is waited
//! for, [`Watch::changed`]. Made before the read, it misses nothing.

use farmbell_farm::record::LedgerEntry;
use farmbell_protocol::id::JobId;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::problem::Result;
use crate::driver::{DriverGone, FarmHandle, Unavailable};

pub(super) struct Watch {
    entries: Receiver<LedgerEntry>,
}

impl Watch {
    pub(super) fn new(farm: &FarmHandle) -> Self {
        Self {
            entries: farm.ledger(),
        }
    }

    /// Returns when the job may have changed.
    pub(super) async fn changed(&mut self, job: JobId) -> Result<()> {
        loop {
            match self.entries.recv().await {
                Ok(entry) if entry.job == Some(job) => return Ok(()),
                Ok(_) => {}
                // Some entries were not seen; the store knows.
                Err(RecvError::Lagged(_)) => return Ok(()),
                Err(RecvError::Closed) => return Err(Unavailable::Gone(DriverGone).into()),
            }
        }
    }
}
