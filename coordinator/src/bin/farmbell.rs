//! The `farmbell` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    farmbell_coordinator::cli::main()
}
