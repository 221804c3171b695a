//! What is wrong right now and what to type, for who was woken by it. Owns
//! which states are trouble: what the farm cannot mend by itself, and what an
//! operator set aside while work waits. At most one line for each builder.

use super::span;
use crate::http::wire::{BuilderView, OverviewView, Stamp};
use crate::inert;

/// One thing to see to.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) builder: String,
    pub(super) what: String,
    /// Where the command is typed, if not here.
    pub(super) on: Option<String>,
    /// The second once the first has made the builder clean.
    pub(super) commands: Vec<String>,
}

pub(super) fn troubles(overview: &OverviewView, now: Stamp) -> Vec<Trouble> {
    // No builder could help those that are held back.
    let work_waits = overview.waiting > overview.held;
    let of = |builder| trouble(builder, work_waits, now);
    overview.builders.iter().filter_map(of).collect()
}

fn trouble(builder: &BuilderView, work_waits: bool, now: Stamp) -> Option<Trouble> {
    let name = in_command(&builder.name);
    let line = |act: &&str| format!("farmbell builder {act} {name} --reason WHY");
    let here = |acts: &[&str]| (None, acts.iter().map(line).collect());
    let there = |command: &str| {
        (
            Some(inert::line(&builder.agent).into_owned()),
            vec![command.to_owned()],
        )
    };
    let reset_failed = builder.reset.trouble.is_some();
    let (what, (on, commands)) = if builder.link != "online" {
        let since = span(builder.link_since.until_ms(now));
        let what = format!("{} for {since}", builder.link);
        (what, there("systemctl status farmbell-agent"))
    } else if reset_failed && builder.mode == "quarantined" {
        let mode = with_reason(&builder.mode, &builder.mode_why);
        (
            format!("{mode}; its last reset failed, and what that wrote stands below"),
            here(&["reset", "resume"]),
        )
    // A disabled one is not reset before it is enabled.
    } else if reset_failed && builder.mode != "disabled" {
        (
            "dirty, and its reset failed; what that wrote stands below".to_owned(),
            here(&["reset"]),
        )
    } else if builder.fitness != "fit" {
        let why = with_reason(&builder.fitness, &builder.fitness_why);
        (
            format!("taking no work: {why}"),
            there("farmbell-agent doctor"),
        )
    } else {
        let act = match builder.mode.as_str() {
            "quarantined" => "resume",
            "draining" if work_waits => "resume",
            "manual" if work_waits => "auto",
            "disabled" if work_waits => "enable",
            _ => return None,
        };
        (with_reason(&builder.mode, &builder.mode_why), here(&[act]))
    };
    Some(Trouble {
        builder: inert::line(&builder.name).into_owned(),
        what: inert::line(&what).into_owned(),
        on,
        commands,
    })
}

fn with_reason(state: &str, why: &str) -> String {
    match why {
        "" => state.to_owned(),
        why => format!("{state}: {why}"),
    }
}

/// A name that a shell reads as one plain word; its place otherwise, since
/// strangers name builders and people paste commands.
fn in_command(name: &str) -> &str {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    if !name.is_empty() && !name.starts_with('-') && name.bytes().all(plain) {
        name
    } else {
        "NAME"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::tests::{builder, overview};

    fn said(change: impl FnOnce(&mut BuilderView), waiting: u64) -> Option<(String, String)> {
        let mut one = builder("atlas-1");
        change(&mut one);
        let mut farm = overview(one);
        farm.held = 3;
        farm.waiting = waiting + farm.held;
        let mut all = troubles(&farm, Stamp(180_000));
        all.pop()
            .map(|trouble| (trouble.what, trouble.commands.join(", then ")))
    }

    #[test]
    fn each_trouble_says_what_to_type() {
        assert_eq!(said(|_| {}, 5), None);
        let (what, command) = said(|one| one.link = "offline".to_owned(), 0).unwrap();
        assert_eq!(what, "offline for 3 min 0 s");
        assert_eq!(command, "systemctl status farmbell-agent");
        let (what, command) = said(|one| one.mode = "quarantined".to_owned(), 0).unwrap();
        assert_eq!(what, "quarantined");
        assert_eq!(command, "farmbell builder resume atlas-1 --reason WHY");
        let reset = said(|one| one.reset.trouble = Some("rm: no".to_owned()), 0).unwrap();
        assert_eq!(reset.1, "farmbell builder reset atlas-1 --reason WHY");
        let by_hand = |one: &mut BuilderView| {
            one.mode = "manual".to_owned();
            one.reset.trouble = Some("rm: no".to_owned());
        };
        let reset = said(by_hand, 1).unwrap();
        assert_eq!(reset.1, "farmbell builder reset atlas-1 --reason WHY");
        let unfit = said(|one| one.fitness = "disk low".to_owned(), 0).unwrap();
        assert_eq!(unfit.1, "farmbell-agent doctor");
    }

    #[test]
    fn a_quarantined_builder_is_reset_if_that_failed_and_then_taken_back() {
        let after_strikes = |one: &mut BuilderView| {
            one.mode = "quarantined".to_owned();
            one.mode_why = "5 strikes, the last: the probe exited with 1".to_owned();
        };
        let failed = |one: &mut BuilderView| {
            after_strikes(one);
            one.reset.trouble = Some("rm: no".to_owned());
        };
        let (what, commands) = said(failed, 0).unwrap();
        assert_eq!(
            what,
            "quarantined: 5 strikes, the last: the probe exited with 1; \
             its last reset failed, and what that wrote stands below"
        );
        assert_eq!(
            commands,
            "farmbell builder reset atlas-1 --reason WHY, then \
             farmbell builder resume atlas-1 --reason WHY"
        );
        let (_, clean) = said(after_strikes, 0).unwrap();
        assert_eq!(clean, "farmbell builder resume atlas-1 --reason WHY");
    }

    #[test]
    fn a_disabled_builder_is_enabled_whatever_its_last_reset_did() {
        let aside = |one: &mut BuilderView| {
            one.mode = "disabled".to_owned();
            one.reset.trouble = Some("rm: no".to_owned());
        };
        assert_eq!(said(aside, 0), None);
        let (_, command) = said(aside, 1).unwrap();
        assert_eq!(command, "farmbell builder enable atlas-1 --reason WHY");
    }

    #[test]
    fn what_an_operator_set_aside_is_trouble_only_while_work_waits() {
        let aside = |one: &mut BuilderView| one.mode = "disabled".to_owned();
        assert_eq!(said(aside, 0), None);
        let (_, command) = said(aside, 1).unwrap();
        assert_eq!(command, "farmbell builder enable atlas-1 --reason WHY");
    }

    #[test]
    fn a_builders_name_never_becomes_part_of_a_command() {
        let hostile = |one: &mut BuilderView| {
            one.name = "x; rm -rf /".to_owned();
            one.mode = "quarantined".to_owned();
        };
        let (_, command) = said(hostile, 0).unwrap();
        assert_eq!(command, "farmbell builder resume NAME --reason WHY");
    }
}
