//! Writes the manual pages of `farmbell-agent` to the directory named as the
//! only argument, made from its command line. Run by the packaging.

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let directory = std::env::args_os()
        .nth(1)
        .context("usage: farmbell_agent_man DIRECTORY")?;
    std::fs::create_dir_all(&directory)?;
    Ok(clap_mangen::generate_to(
        farmbell_agent::cli::command(),
        directory,
    )?)
}
