//! The farm from its store. Owns that reading and decoding the records goes on
//! beside building the farm from them: a million jobs are seconds of work for
//! both, and nothing is served meanwhile.

use std::sync::mpsc::sync_channel;
use std::thread;

use farmbell_farm::effect::Effect;
use farmbell_farm::record::{JobRecord, Snapshot};
use farmbell_farm::{Farm, Settings};
use farmbell_protocol::time::Now;

use super::running::{DriverError, no_thread};
use crate::store::{Store, StoreError};

/// Jobs handed over together: enough that waking the other side costs nothing.
const TOGETHER: usize = 256;
/// Handfuls that may wait for the farm; with the records some 2 MB.
const HANDFULS: usize = 16;

pub(super) fn farm(
    store: &mut impl Store,
    settings: Settings,
    snapshot: Snapshot,
    now: Now,
    seed: [u8; 32],
) -> Result<(Farm, Vec<Effect>), DriverError> {
    thread::scope(|scope| {
        let (give, handfuls) = sync_channel(HANDFULS);
        let reading = thread::Builder::new()
            .name("restore".to_owned())
            // Nobody takes them only if the farm's side panics, which ends this too.
            .spawn_scoped(scope, move || {
                read(store, |handful| drop(give.send(handful)))
            })
            .map_err(no_thread)?;
        let restored = Farm::restore(
            settings,
            snapshot,
            handfuls.into_iter().flatten(),
            now,
            seed,
        );
        // What the farm was built from is whole only if the reader says so.
        reading
            .join()
            .map_err(|_| DriverError::Thread("restore"))??;
        Ok(restored)
    })
}

fn read(store: &mut impl Store, give: impl Fn(Vec<JobRecord>)) -> Result<(), StoreError> {
    let mut handful = Vec::with_capacity(TOGETHER);
    store.jobs(&mut |job| {
        handful.push(job);
        if handful.len() == TOGETHER {
            give(std::mem::replace(
                &mut handful,
                Vec::with_capacity(TOGETHER),
            ));
        }
    })?;
    give(handful);
    Ok(())
}
