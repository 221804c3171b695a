//! `farmbell-agent doctor`: looks at everything a builder host needs and says,
//! for each thing that is wrong, the command that mends it. Owns the list and
//! how it is shown; each look is one function that changes nothing. What an
//! agent works without it tells from the same list when it starts.

mod host;
mod network;

use std::fmt;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::Places;
use crate::config::Config;
use crate::groups::Place;
use crate::launcher::unit::Unit;

/// Look at this host and say what to mend.
#[derive(Debug, Args)]
pub struct Doctor {
    #[command(flatten)]
    places: Places,
    /// How the findings are printed.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// One list, for programs.
    Json,
}

/// How a look came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    Ok,
    /// It works, with less: the finding says what that costs.
    Degraded,
    /// It does not work.
    Failed,
}

/// One look at one thing.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    check: &'static str,
    health: Health,
    found: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    fix: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            health: Health::Ok,
            found: found.into(),
            fix: String::new(),
        }
    }

    fn degraded(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            check,
            health: Health::Degraded,
            found: found.into(),
            fix: fix.into(),
        }
    }

    fn failed(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            check,
            health: Health::Failed,
            found: found.into(),
            fix: fix.into(),
        }
    }
}

/// In one line, with the command that mends it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.found)?;
        if self.fix.is_empty() {
            return Ok(());
        }
        write!(f, " (fix: {})", self.fix)
    }
}

impl Doctor {
    /// # Errors
    /// If the findings cannot be printed.
    pub fn perform(self) -> anyhow::Result<ExitCode> {
        let findings = match self.places.config() {
            Ok(config) => look(&config, &self.places)?,
            Err(error) => vec![Finding::failed(
                "configuration",
                format!("{error:#}"),
                "mend the file; an example is in /usr/share/doc/farmbell-agent/examples",
            )],
        };
        match self.output {
            Format::Json => print(&serde_json::to_string_pretty(&findings)?),
            Format::Table => print(&table(&findings)),
        }
        let failed = findings.iter().any(|one| one.health == Health::Failed);
        Ok(if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

/// What this host lacks: each costs something, none keeps the agent from working.
pub(crate) fn lacking(config: &Config, unit: Option<&Unit>, place: &Place) -> Vec<Finding> {
    let mut findings = host::equipment(config, unit, place);
    findings.retain(|one| one.health == Health::Degraded);
    findings
}

fn look(config: &Config, places: &Places) -> anyhow::Result<Vec<Finding>> {
    let mut findings = vec![Finding::ok(
        "configuration",
        format!(
            "{} builders; state in {}",
            config.builders.len(),
            config.state.display()
        ),
    )];
    findings.extend(host::look(config));
    let (unit, broken) = match places.launcher() {
        Ok(unit) => (unit, None),
        Err(error) => {
            let fix = "systemctl restart farmbell-launcher";
            let broken = Finding::failed("launcher", format!("{error:#}"), fix);
            (None, Some(broken))
        }
    };
    let place = Place::of(unit.as_ref());
    findings.extend(host::equipment(config, unit.as_ref(), &place));
    if let Some(broken) = broken {
        findings.retain(|one| one.check != broken.check);
        findings.push(broken);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    findings.extend(runtime.block_on(network::look(config)));
    Ok(findings)
}

fn table(findings: &[Finding]) -> String {
    let width = findings
        .iter()
        .map(|one| one.check.len())
        .max()
        .unwrap_or(0);
    let mut lines = Vec::new();
    for one in findings {
        let mark = match one.health {
            Health::Ok => "ok      ",
            Health::Degraded => "degraded",
            Health::Failed => "FAILED  ",
        };
        lines.push(format!("{mark}  {:width$}  {}", one.check, one.found));
        if !one.fix.is_empty() {
            lines.push(format!("          {:width$}  fix: {}", "", one.fix));
        }
    }
    lines.join("\n")
}

#[expect(clippy::print_stdout, reason = "this is a command a person types")]
fn print(text: &str) {
    println!("{text}");
}
