//! `without WHAT… -- PROGRAM…`: becomes the program, on a kernel that lacks
//! something. What it takes away stays away from all that the program starts.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use nix::errno::Errno;
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Become a program on a kernel that lacks something
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(required = true)]
    what: Vec<What>,
    #[arg(last = true, required = true)]
    program: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// As before Linux 5.3: children are waited for by SIGCHLD
    Pidfd,
    /// As where user namespaces are switched off
    Namespaces,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    for what in &arguments.what {
        for (refused, errno) in refused_for(*what)? {
            seccompiler::apply_filter(&filter(refused, errno)?)?;
        }
    }
    let (program, rest) = arguments
        .program
        .split_first()
        .context("there is no program")?;
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("cannot become {program}"))
}

/// Calls and when they are refused; no rule means always.
type Refused = BTreeMap<i64, Vec<SeccompRule>>;

fn refused_for(what: What) -> anyhow::Result<Vec<(Refused, Errno)>> {
    let always = |call| BTreeMap::from([(call, Vec::new())]);
    Ok(match what {
        What::Pidfd => vec![(always(libc::SYS_pidfd_open), Errno::ENOSYS)],
        What::Namespaces => {
            let flag = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
            let rule = || {
                let asked = SeccompCondition::new(
                    0,
                    SeccompCmpArgLen::Qword,
                    SeccompCmpOp::MaskedEq(flag),
                    flag,
                )?;
                SeccompRule::new(vec![asked])
            };
            let refused = BTreeMap::from([
                (libc::SYS_unshare, vec![rule()?]),
                (libc::SYS_clone, vec![rule()?]),
            ]);
            // Its flags lie in memory, where a filter cannot see them; whoever
            // has no clone3 uses clone.
            vec![
                (refused, Errno::EPERM),
                (always(libc::SYS_clone3), Errno::ENOSYS),
            ]
        }
    })
}

fn filter(refused: Refused, errno: Errno) -> anyhow::Result<BpfProgram> {
    let here = TargetArch::try_from(std::env::consts::ARCH)?;
    let number = u32::try_from(errno as i32)?;
    let filter = SeccompFilter::new(
        refused,
        SeccompAction::Allow,
        SeccompAction::Errno(number),
        here,
    )?;
    Ok(BpfProgram::try_from(filter)?)
}
