//! The coordinator service.

use std::process::ExitCode;

fn main() -> ExitCode {
    farmbell_coordinator::service::main()
}
