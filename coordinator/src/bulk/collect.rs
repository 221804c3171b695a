//! When an attempt's outputs are complete: the manifest and every blob that it
//! names are durable. Owns reading the manifest; tells the farm once per
//! expectation, and again after a new one: a repeat changes nothing there.

use std::io::Read;
use std::sync::Arc;

use farmbell_farm::event::Event;
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::AttemptId;
use farmbell_protocol::spec::{Manifest, Output};

use super::Transfers;
use super::admissions::Collected;
use super::connection::blocking;
use crate::blobs::{BlobError, Blobs};
use crate::driver::DriverGone;

/// The manifest of the most outputs there can be, each with the longest name.
const MANIFEST_BYTES_MAX: u64 = 40 << 20;

/// Looks again at an attempt whose manifest is expected now.
pub(super) async fn check(attempt: AttemptId, transfers: &Transfers) {
    let collected = transfers.admissions.collected(attempt);
    if tell(attempt, collected, transfers).await.is_err() {
        tracing::debug!("the coordinator is going down");
    }
}

/// Tells the farm if all is there, after reading the manifest if it is time.
pub(super) async fn tell(
    attempt: AttemptId,
    collected: Collected,
    transfers: &Transfers,
) -> Result<(), DriverGone> {
    let collected = match collected {
        Collected::ReadManifest(digest) => match read(digest, &transfers.blobs).await {
            Some(outputs) => transfers.admissions.manifest(attempt, outputs),
            None => Collected::NotYet,
        },
        collected @ (Collected::NotYet | Collected::All(_)) => collected,
    };
    match collected {
        Collected::All(outputs) => {
            tracing::debug!(%attempt, outputs = outputs.len(), "collected");
            let collected = Event::Collected { attempt, outputs };
            transfers.farm.tell(collected).await
        }
        Collected::NotYet | Collected::ReadManifest(_) => Ok(()),
    }
}

/// The outputs that the manifest names, if it is one.
async fn read(digest: Digest, blobs: &Blobs) -> Option<Arc<[Output]>> {
    let blobs = blobs.clone();
    match blocking(move || decode(&blobs, digest)).await {
        Ok(manifest) => manifest.map(|manifest| manifest.outputs.into_vec().into()),
        Err(error) => {
            tracing::error!(%error, %digest, "a manifest cannot be read");
            None
        }
    }
}

fn decode(blobs: &Blobs, digest: Digest) -> Result<Option<Manifest>, BlobError> {
    let mut bytes = Vec::new();
    let mut file = blobs.read(digest)?.take(MANIFEST_BYTES_MAX);
    if let Err(error) = file.read_to_end(&mut bytes) {
        tracing::error!(%error, %digest, "a stored manifest cannot be read");
        return Ok(None);
    }
    match postcard::from_bytes(&bytes) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) => {
            tracing::warn!(%error, %digest, "an agent's manifest is none");
            Ok(None)
        }
    }
}
