//! Writes the manual pages of `farmbell` and `farmbell-coordinator` to
//! directories of their names below the one named as the only argument, made
//! from their command lines. Run by the packaging.

use std::path::Path;

use anyhow::{Context as _, ensure};

fn main() -> anyhow::Result<()> {
    let directory = std::env::args_os()
        .nth(1)
        .context("usage: farmbell_coordinator_man DIRECTORY")?;
    let directory = Path::new(&directory);
    for command in [
        farmbell_coordinator::cli::command(),
        farmbell_coordinator::service::command(),
    ] {
        let pages = directory.join(command.get_name());
        std::fs::create_dir_all(&pages)?;
        clap_mangen::generate_to(command, pages)?;
    }
    leave_a_name_to_the_agent(&directory.join("farmbell"))
}

/// The page of `farmbell agent` would be taken for the program
/// `farmbell-agent`'s: the pages of its subcommands stand for it.
fn leave_a_name_to_the_agent(pages: &Path) -> anyhow::Result<()> {
    std::fs::remove_file(pages.join("farmbell-agent.1"))?;
    let command = farmbell_coordinator::cli::command();
    let agent = command
        .find_subcommand("agent")
        .context("no `farmbell agent`")?;
    let subcommands = agent.get_subcommands();
    let acts = subcommands.map(|act| format!("farmbell\\-agent\\-{}(1)", act.get_name()));
    let acts: Vec<_> = acts.collect();
    let top = pages.join("farmbell.1");
    let text = std::fs::read_to_string(&top)?;
    let mended = text.replace(
        "\nfarmbell\\-agent(1)\n",
        &format!("\n{}\n", acts.join(", ")),
    );
    ensure!(
        text != mended,
        "{} refers to no farmbell-agent(1)",
        top.display()
    );
    Ok(std::fs::write(top, mended)?)
}
