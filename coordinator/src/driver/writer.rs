//! The thread that commits. Owns the store; one transaction at a time, so
//! that a slow disk never holds the farm's own thread.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use farmbell_farm::record::Change;
use tokio::sync::mpsc;

use crate::store::{CommitError, Store};

/// One transaction is in commit; the next is gathered meanwhile.
const IN_COMMIT: usize = 1;

/// The store's thread, as the driver sees it.
#[derive(Debug)]
pub(super) struct Writer {
    commits: mpsc::Sender<Vec<Change>>,
    results: mpsc::Receiver<Committed>,
}

/// What became of a transaction; its changes come back with it.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) changes: Vec<Change>,
    pub(super) took: Duration,
    pub(super) result: Result<(), CommitError>,
}

/// The store's thread panicked or was never there.
#[derive(Debug)]
pub(super) struct WriterGone;

impl Writer {
    pub(super) fn start(
        mut store: impl Store + 'static,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (commits, mut waiting) = mpsc::channel::<Vec<Change>>(IN_COMMIT);
        let (done, results) = mpsc::channel(IN_COMMIT);
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                while let Some(changes) = waiting.blocking_recv() {
                    let began = Instant::now();
                    let result = store.commit(&changes);
                    let took = began.elapsed();
                    if done
                        .blocking_send(Committed {
                            changes,
                            took,
                            result,
                        })
                        .is_err()
                    {
                        return;
                    }
                }
            })?;
        Ok((Self { commits, results }, thread))
    }

    /// Hands a transaction over; only when none is in commit.
    pub(super) fn commit(&self, changes: Vec<Change>) -> Result<(), WriterGone> {
        self.commits.try_send(changes).map_err(|_| WriterGone)
    }

    pub(super) async fn committed(&mut self) -> Result<Committed, WriterGone> {
        self.results.recv().await.ok_or(WriterGone)
    }
}
