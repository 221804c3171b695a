//! One builder's event chain over its lives: a driver until it panics, then
//! another from what the spool and the host say, as after a `kill -9`. Owns
//! what outlives a driver; decides nothing about work.
//!
//! ```text
//!  take_up ─▶ driver runs ─▶ panic ─▶ pause, answering Hellos ─▶ take_up …
//! ```
//!
//! Invariants: two drivers of one builder never work at the same time, and a
//! panic ends this chain's driver only. One that works again ends the session,
//! since only a Welcome tells a new brain what its coordinator knows; one that
//! panics over and over ends none, and holds up no Hello.

use std::any::Any;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use farmbell_protocol::builder::{Effect, Record, Settings};
use farmbell_protocol::client::session::ToBuilder;
use farmbell_protocol::id::BootId;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::driver::{self, Driver, Leaving};
use crate::host::{BuilderHost, blocking};
use crate::spool::{Damage, Spool};

/// Before the first new driver; doubled with each panic that follows soon.
const PAUSE: Duration = Duration::from_millis(50);
/// A bug that a person has to mend; trying costs little.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Before a spool that cannot be read is tried again.
const DISK_RETRY: Duration = Duration::from_secs(5);
/// A driver that worked this long was a good one.
const GOOD: Duration = Duration::from_secs(60);

/// What every driver of one builder is made of.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) host: BuilderHost,
    pub(crate) spool: Spool,
    pub(crate) boot: BootId,
    pub(crate) once: bool,
}

/// One builder's chain, its first driver made.
pub(crate) struct Chain {
    plan: Arc<Plan>,
    next: Life,
    pub(crate) damage: Option<Damage>,
}

/// A driver, what it has to do at once, and how its end shows.
struct Life {
    driver: Driver,
    first: Vec<Effect>,
    /// Ends with the last work of this driver that touches the host.
    work: mpsc::Receiver<Infallible>,
}

impl Chain {
    /// Takes the builder up from what its spool and its host say.
    ///
    /// # Errors
    /// If either cannot be read.
    pub(crate) async fn new(plan: Plan) -> io::Result<Self> {
        let plan = Arc::new(plan);
        let (next, damage) = plan.take_up().await?;
        Ok(Self { plan, next, damage })
    }

    /// Serves for as long as it is polled. `busy` is dropped once the agent
    /// leaves and nothing is held; the session still needs this task then.
    pub(crate) async fn run(
        self,
        mut session: mpsc::Receiver<ToBuilder>,
        mut leaving: watch::Receiver<Leaving>,
        busy: mpsc::Sender<Infallible>,
    ) {
        let Self { plan, mut next, .. } = self;
        let mut busy = Some(busy);
        let mut pause = PAUSE;
        loop {
            let Life {
                mut driver,
                first,
                mut work,
            } = next;
            let began = Instant::now();
            let ended = guarded(driver.run(first, &mut session, &mut leaving, &mut busy)).await;
            let Err(panic) = ended else { return };
            let builder = &plan.host.name;
            let why = words_of(panic.as_ref());
            tracing::error!(%builder, why, "a builder's task panicked; it starts again from its spool");
            if began.elapsed() > GOOD {
                pause = PAUSE;
            }
            let mut waiting = plan.take_up_again().await.driver;
            waiting.follow(driver);
            // What the panicked one began must not meet what the next one does.
            let ended = async { while work.recv().await.is_some() {} };
            let paused = async { tokio::join!(ended, tokio::time::sleep(pause)) };
            tokio::select! {
                () = waiting.wait(&mut session) => return,
                _ = paused => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
            next = plan.take_up_again().await;
            next.driver.follow(waiting);
            leaving.mark_changed();
        }
    }
}

impl Plan {
    /// Until the disk lets it: without its spool a builder must do nothing.
    async fn take_up_again(self: &Arc<Self>) -> Life {
        loop {
            match self.take_up().await {
                Ok((life, _)) => return life,
                Err(error) => {
                    tracing::error!(builder = %self.host.name, %error, "waiting for the spool");
                    tokio::time::sleep(DISK_RETRY).await;
                }
            }
        }
    }

    async fn take_up(self: &Arc<Self>) -> io::Result<(Life, Option<Damage>)> {
        let restored = self.spool.restore().await.map_err(io::Error::other)?;
        if let Some(Damage { places, kept_at }) = &restored.damage {
            let kept = kept_at.display();
            tracing::error!(builder = %self.host.name, places, %kept, "the spool was damaged");
        }
        let plan = self.clone();
        let life = blocking(move || plan.life_of(restored.records))
            .await
            .flatten();
        Ok((life?, restored.damage))
    }

    /// Looks at the host. Blocking.
    fn life_of(&self, records: Vec<Record>) -> io::Result<Life> {
        let (life, work) = mpsc::channel(1);
        let host = BuilderHost {
            _life: life,
            ..self.host.clone()
        };
        let (settings, spool) = (self.settings.clone(), self.spool.clone());
        let (driver, first) =
            driver::restored(settings, records, host, spool, self.boot, self.once)?;
        Ok(Life {
            driver,
            first,
            work,
        })
    }
}

/// Runs to the end, or to a panic, which stays here.
async fn guarded(work: impl Future<Output = ()>) -> Result<(), Box<dyn Any + Send>> {
    let mut work = pin!(work);
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    )
    .await
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
}
