//! What all tasks of one builder share: its places, its limits, and the ways
//! to the launcher and to bulk. Values only; decides nothing.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::ResetScope;
use farmbell_protocol::bounded::Name;
use farmbell_protocol::client::bulk::Bulk;
use farmbell_protocol::client::session::LinkState;
use farmbell_protocol::id::AttemptId;
use tokio::sync::{mpsc, watch};

use crate::attempt::AttemptDir;
use crate::config::{BuilderLimits, Script};
use crate::groups::Place;
use crate::launcher::Launcher;
use crate::recipes::Recipes;
use crate::tidy::Tidy;

/// One builder's surroundings.
#[derive(Clone)]
pub(crate) struct BuilderHost {
    pub(crate) name: Name,
    /// The directory of this builder's attempts.
    pub(crate) directory: PathBuf,
    pub(crate) limits: BuilderLimits,
    /// With fewer bytes free it takes no offers; 0 for no such limit.
    pub(crate) disk_low_bytes: u64,
    /// Its reset script, if it has one; run by the launcher.
    pub(crate) reset: Option<Script>,
    pub(crate) reset_scope: ResetScope,
    pub(crate) recipes: Recipes,
    pub(crate) secrets: Option<PathBuf>,
    pub(crate) chroots: Option<PathBuf>,
    pub(crate) place: Place,
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) tidy: Tidy,
    pub(crate) bulk: Bulk,
    pub(crate) link: watch::Receiver<LinkState>,
    /// Held by all work of one driver, so that its end can be waited for: work
    /// on blocking threads goes on when its task is dropped.
    pub(crate) _life: mpsc::Sender<Infallible>,
}

impl BuilderHost {
    pub(crate) fn dir(&self, attempt: AttemptId) -> AttemptDir {
        AttemptDir::of(&self.directory, attempt)
    }

    pub(crate) fn grace(&self) -> Duration {
        self.limits.grace
    }
}

/// Runs work that may block on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)
}
