//! The `farmbell-agent` command. Looks only at its arguments; a supervisor is
//! recognised before anything else is set up, since a build waits for it.

use std::path::Path;
use std::process::ExitCode;

use farmbell_agent::{cli, supervisor};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if let (Some(first), Some(dir)) = (arguments.next(), arguments.next())
        && first == supervisor::SUBCOMMAND
    {
        return supervisor::main(Path::new(&dir));
    }
    cli::main()
}
