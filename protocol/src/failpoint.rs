//! Named points between "written" and "said", where a test lets a process
//! die: `FARMBELL_FAILPOINT=name[:count]` ends it at the count-th passing, as
//! by `kill -9`; with `name:always` each passing is the one. Always compiled
//! in; costs one load of an atomic where it is not set.
//!
//! Owns the mechanism. The points are each program's own list, made by
//! [`failpoints!`](crate::failpoints).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The variable that arms one point.
pub const VARIABLE: &str = "FARMBELL_FAILPOINT";

/// In place of a count that is left.
const ALWAYS: u64 = u64::MAX;

/// A program's list of points.
pub trait Point: Copy + PartialEq + 'static {
    /// Every point there is, so that a test can hit each.
    const ALL: &[Self];

    /// As the variable names it.
    fn name(self) -> &'static str;
}

/// Makes `Failpoint`, the list of a program's points, and the functions by
/// which it arms and passes them.
#[macro_export]
macro_rules! failpoints {
    ($($name:ident $text:literal)*) => {
        /// Where the process may be made to die.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Failpoint { $($name,)* }

        impl $crate::failpoint::Point for Failpoint {
            const ALL: &[Self] = &[$(Self::$name,)*];

            fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }

        static POINTS: $crate::failpoint::Points<Failpoint> = $crate::failpoint::Points::new();

        /// Reads the variable, once, at the start of the process.
        ///
        /// # Errors
        /// If it names a point that does not exist.
        pub fn arm_from_environment() -> Result<(), $crate::failpoint::UnknownFailpoint> {
            POINTS.arm_from_environment()
        }

        /// Passes a point; where it is armed and its time has come, the
        /// process dies.
        #[inline]
        pub fn pass(point: Failpoint) {
            POINTS.pass(point);
        }

        /// Whether this passing of a point is the armed one, for points where
        /// something else than death is injected.
        #[inline]
        #[must_use]
        pub fn fires(point: Failpoint) -> bool {
            POINTS.fires(point)
        }
    };
}

/// What of a program's points is armed: one at most.
#[derive(Debug)]
pub struct Points<P> {
    armed: AtomicBool,
    left: AtomicU64,
    point: OnceLock<P>,
}

/// Why the variable cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE}={value} names no failpoint; there are: {known}")]
pub struct UnknownFailpoint {
    value: String,
    known: String,
}

impl<P: Point> Points<P> {
    #[must_use]
    #[expect(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        Self {
            armed: AtomicBool::new(false),
            left: AtomicU64::new(0),
            point: OnceLock::new(),
        }
    }

    /// Reads the variable, once, at the start of the process.
    ///
    /// # Errors
    /// If it names a point that does not exist: a test that hits nothing is a
    /// defect of the test.
    pub fn arm_from_environment(&self) -> Result<(), UnknownFailpoint> {
        match std::env::var(VARIABLE) {
            Ok(value) => self.arm(&value),
            Err(_) => Ok(()),
        }
    }

    fn arm(&self, value: &str) -> Result<(), UnknownFailpoint> {
        let (name, count) = match value.split_once(':') {
            Some((name, "always")) => (name, Some(ALWAYS)),
            Some((name, count)) => (name, count.parse::<u64>().ok().filter(|count| *count > 0)),
            None => (value, Some(1)),
        };
        let point = P::ALL.iter().find(|point| point.name() == name);
        let (Some(point), Some(count)) = (point, count) else {
            let known: Vec<_> = P::ALL.iter().map(|point| point.name()).collect();
            return Err(UnknownFailpoint {
                known: known.join(" "),
                value: value.to_owned(),
            });
        };
        if self.point.set(*point).is_ok() {
            self.left.store(count, Ordering::Relaxed);
            self.armed.store(true, Ordering::Release);
        }
        Ok(())
    }

    #[inline]
    pub fn pass(&self, point: P) {
        if self.fires(point) {
            std::process::abort();
        }
    }

    #[inline]
    pub fn fires(&self, point: P) -> bool {
        self.armed.load(Ordering::Relaxed) && self.is_due(point)
    }

    #[cold]
    fn is_due(&self, point: P) -> bool {
        self.point.get() == Some(&point) && self.is_counted_down()
    }

    fn is_counted_down(&self) -> bool {
        let passed =
            self.left
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| match left {
                    0 => None,
                    ALWAYS => Some(ALWAYS),
                    left => Some(left - 1),
                });
        matches!(passed, Ok(1 | ALWAYS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Here {
        First,
        Second,
    }

    impl Point for Here {
        const ALL: &[Self] = &[Self::First, Self::Second];

        fn name(self) -> &'static str {
            match self {
                Self::First => "first",
                Self::Second => "second",
            }
        }
    }

    fn fired(armed: &str) -> [bool; 3] {
        let points = Points::new();
        points.arm(armed).unwrap();
        assert!(!points.fires(Here::First), "another point is armed");
        [(); 3].map(|()| points.fires(Here::Second))
    }

    #[test]
    fn a_point_fires_at_the_passing_it_was_armed_for() {
        assert_eq!(fired("second"), [true, false, false]);
        assert_eq!(fired("second:2"), [false, true, false]);
        assert_eq!(fired("second:always"), [true; 3]);
        assert!(!Points::new().fires(Here::Second), "nothing is armed");
    }

    #[test]
    fn what_names_no_point_is_refused_with_those_there_are() {
        for wrong in ["third", "second:0", "second:x", ""] {
            let refused = Points::<Here>::new().arm(wrong).unwrap_err().to_string();
            assert!(refused.ends_with("there are: first second"), "{refused}");
        }
    }
}
