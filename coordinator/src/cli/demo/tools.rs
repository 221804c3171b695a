//! What building a Debian package needs on this machine. Owns finding out what
//! is missing and installing it, as root or by a sudo that asks nothing; else
//! it names the command.

use anstream::println;
use anyhow::{Context as _, bail};
use nix::unistd::Uid;
use tokio::process::Command;

use super::source::Source;
use super::succeed;

/// Debian packages that any build needs.
pub(super) const FOR_BUILDING: &[&str] = &["dpkg-dev", "gcc", "libc6-dev", "make"];

/// Makes sure that these packages are installed.
pub(super) async fn install(packages: &[&str]) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for package in packages {
        if !installed(package).await? {
            missing.push(*package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut arguments = vec!["install"];
    arguments.extend(&missing);
    apt_get(&arguments).await
}

/// Makes sure that the source's build dependencies are installed.
pub(super) async fn install_build_dependencies(source: &Source) -> anyhow::Result<()> {
    let control = source.dsc.with_extension("build-depends");
    std::fs::write(&control, source.control()?)?;
    let check = Command::new("dpkg-checkbuilddeps")
        .arg(&control)
        .output()
        .await
        .context("cannot start dpkg-checkbuilddeps")?;
    if check.status.success() {
        return Ok(());
    }
    let dsc = source
        .dsc
        .to_str()
        .context("the path of the source is not plain text")?;
    apt_get(&["build-dep", dsc]).await
}

async fn installed(package: &str) -> anyhow::Result<bool> {
    let query = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", package])
        .output()
        .await
        .context("cannot start dpkg-query: the demo needs Debian or a relative of it")?;
    Ok(query.stdout == b"installed")
}

async fn apt_get(arguments: &[&str]) -> anyhow::Result<()> {
    let line = format!(
        "apt-get {} --no-install-recommends {}",
        arguments[0],
        arguments[1..].join(" ")
    );
    let as_root: &[&str] = if Uid::effective().is_root() {
        &[]
    } else if sudo_asks_nothing().await {
        &["sudo", "-n"]
    } else {
        bail!(
            "packages are missing and this is neither root nor a user with sudo. Type this, then try again:\n    su -c 'apt-get update && {line}'"
        );
    };
    println!("installing: {line}");
    if run(as_root, arguments).await.is_ok() {
        return Ok(());
    }
    // The list of packages may be missing or old.
    run(as_root, &["update"]).await?;
    run(as_root, arguments).await
}

async fn run(as_root: &[&str], arguments: &[&str]) -> anyhow::Result<()> {
    let words = [
        as_root,
        &[
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "-q",
            "-y",
        ],
    ]
    .concat();
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .arg("--no-install-recommends")
        .args(arguments);
    succeed(&mut command).await
}

async fn sudo_asks_nothing() -> bool {
    succeed(Command::new("sudo").args(["-n", "true"]))
        .await
        .is_ok()
}
