//! Work on the disk that nobody waits for: removing what is over, making what
//! comes next. Owns the one thread that does it, which gives way to all others:
//! where a build ends and the next begins, those have the processors first.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

/// As nice as the builds, which it is as urgent as.
const NICE: i32 = 10;

type Work = Box<dyn FnOnce() + Send>;

/// The thread, as all builders of the agent share it.
#[derive(Clone, Debug)]
pub(crate) struct Tidy {
    works: mpsc::Sender<Work>,
}

impl Tidy {
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start() -> io::Result<Self> {
        let (works, waiting) = mpsc::channel::<Work>();
        std::thread::Builder::new()
            .name("tidy".to_owned())
            .spawn(move || {
                // Of this thread alone.
                if let Err(error) = rustix::process::nice(NICE) {
                    tracing::debug!(%error, "tidying is as urgent as the rest");
                }
                for work in waiting {
                    if catch_unwind(AssertUnwindSafe(work)).is_err() {
                        tracing::error!("tidying panicked; what it was to remove may stay");
                    }
                }
            })?;
        Ok(Self { works })
    }

    /// Does it some time, behind what came before.
    pub(crate) fn later(&self, work: impl FnOnce() + Send + 'static) {
        if self.works.send(Box::new(work)).is_err() {
            tracing::error!("the thread that tidies is gone");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_panic_is_not_the_end_of_tidying() {
        let tidy = Tidy::start().unwrap();
        let (done, heard) = mpsc::channel();
        tidy.later(|| panic!("injected"));
        tidy.later(move || done.send("tidied").unwrap());
        assert_eq!(heard.recv(), Ok("tidied"));
    }
}
