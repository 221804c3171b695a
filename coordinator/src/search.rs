//! Searching the store for finished jobs that a bulk operation means, where the
//! farm asks for it. Decides nothing: the farm does, with what is told here.

use std::sync::Arc;

use farmbell_farm::effect::Search;
use farmbell_farm::event::Event;
use tokio::sync::mpsc;

use crate::driver::FarmHandle;
use crate::store::Queries;

/// Searches that may wait: one of each bulk operation that there may be. What
/// finds no place the farm asks for again.
const SEARCHES: usize = 16;

/// Where the farm's effects leave their searches.
#[derive(Clone, Debug)]
pub struct Searches(mpsc::Sender<(u64, Search)>);

/// Where they are taken from.
#[derive(Debug)]
pub struct Waiting(mpsc::Receiver<(u64, Search)>);

#[must_use]
pub fn orders() -> (Searches, Waiting) {
    let (give, take) = mpsc::channel(SEARCHES);
    (Searches(give), Waiting(take))
}

impl Searches {
    pub(crate) fn search(&self, operation: u64, search: Search) {
        if let Err(error) = self.0.try_send((operation, search)) {
            tracing::warn!(%error, operation, "a bulk operation waits until it is asked for again");
        }
    }
}

/// Searches until `stop`.
///
/// # Errors
/// Never: what fails is said, and the farm asks again.
pub async fn run(
    mut waiting: Waiting,
    queries: Arc<dyn Queries>,
    farm: FarmHandle,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    tokio::pin!(stop);
    loop {
        let order = tokio::select! {
            biased;
            () = &mut stop => None,
            order = waiting.0.recv() => order,
        };
        let Some((operation, search)) = order else {
            return Ok(());
        };
        let queries = Arc::clone(&queries);
        match tokio::task::spawn_blocking(move || queries.search(&search)).await {
            Ok(Ok(found)) => {
                if farm.tell(Event::Found { operation, found }).await.is_err() {
                    return Ok(());
                }
            }
            Ok(Err(error)) => {
                tracing::error!(%error, operation, "a bulk operation waits: the store cannot be read");
            }
            Err(error) => tracing::error!(%error, "a search panicked"),
        }
    }
}
