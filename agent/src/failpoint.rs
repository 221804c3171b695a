//! Named points between "written" and "said", where a test lets the process
//! die: `FARMBELL_FAILPOINT=name[:count]` aborts at the count-th passing.
//! Always compiled in; costs one load of an atomic where it is not set. Points
//! whose name has `panic` in it panic instead of aborting, and `name:always`
//! does so at every passing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The variable that arms one point.
pub const VARIABLE: &str = "FARMBELL_FAILPOINT";

macro_rules! failpoints {
    ($($name:ident $text:literal)*) => {
        /// Where the process may be made to die.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Failpoint { $($name,)* }

        impl Failpoint {
            /// Every point there is, so that a test can hit each.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

failpoints! {
    SpoolWritten "spool.written"
    SpoolSynced "spool.synced"
    SpoolRewritten "spool.rewritten"
    BetweenEffects "driver.between-effects"
    Prepared "launcher.prepared"
    SupervisorStarted "launcher.supervisor-started"
    EndSeen "launcher.end-seen"
    OutputsSealed "seal.sealed"
    ManifestKept "seal.manifest-kept"
    ResetDone "reset.done"
    Released "release.removed"
    PanicInBuilder "driver.panic-in-stop"
}

impl Failpoint {
    /// Whether the process is gone after it: a builder's panic ends that
    /// builder's driver only.
    #[must_use]
    pub fn ends_process(self) -> bool {
        self != Self::PanicInBuilder
    }
}

static ARMED: AtomicBool = AtomicBool::new(false);
static LEFT: AtomicU64 = AtomicU64::new(0);
/// In place of a count that is left.
const ALWAYS: u64 = u64::MAX;
static POINT: OnceLock<Failpoint> = OnceLock::new();

/// Why the variable cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE}={value} names no failpoint; there are: {known}")]
pub struct UnknownFailpoint {
    value: String,
    known: String,
}

/// Reads the variable, once, at the start of the process.
///
/// # Errors
/// If it names a point that does not exist: a test that hits nothing is a
/// defect of the test.
pub fn arm_from_environment() -> Result<(), UnknownFailpoint> {
    let Ok(value) = std::env::var(VARIABLE) else {
        return Ok(());
    };
    let (name, count) = match value.split_once(':') {
        Some((name, "always")) => (name, Some(ALWAYS)),
        Some((name, count)) => (name, count.parse::<u64>().ok().filter(|count| *count > 0)),
        None => (value.as_str(), Some(1)),
    };
    let point = Failpoint::ALL.iter().find(|point| point.name() == name);
    let (Some(point), Some(count)) = (point, count) else {
        let known: Vec<_> = Failpoint::ALL.iter().map(|point| point.name()).collect();
        return Err(UnknownFailpoint {
            known: known.join(" "),
            value,
        });
    };
    if POINT.set(*point).is_ok() {
        LEFT.store(count, Ordering::Relaxed);
        ARMED.store(true, Ordering::Release);
    }
    Ok(())
}

/// Passes a point; where it is armed and the count is reached, the process
/// dies as by `kill -9`.
#[inline]
pub fn pass(point: Failpoint) {
    if ARMED.load(Ordering::Relaxed) {
        pass_armed(point);
    }
}

/// Whether this passing of a point is the armed one, for points where
/// something else than death is injected.
#[inline]
#[must_use]
pub fn fires(point: Failpoint) -> bool {
    ARMED.load(Ordering::Relaxed) && is_due(point)
}

#[cold]
fn pass_armed(point: Failpoint) {
    if is_due(point) {
        std::process::abort();
    }
}

fn is_due(point: Failpoint) -> bool {
    POINT.get() == Some(&point) && is_counted_down()
}

fn is_counted_down() -> bool {
    let passed = LEFT.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| match left {
        0 => None,
        ALWAYS => Some(ALWAYS),
        left => Some(left - 1),
    });
    matches!(passed, Ok(1 | ALWAYS))
}
