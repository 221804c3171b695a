//! What the tests, figures and long runs are made of.

#[cfg(feature = "daemons")]
pub mod bench;
#[cfg(feature = "daemons")]
pub mod chaos;
#[cfg(feature = "daemons")]
pub mod harness;
pub mod sim;
