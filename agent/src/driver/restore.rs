//! Taking a builder up where an earlier life of the agent left it: the spool's
//! records and what the host really has, compared by the brain. Owns the look
//! at the host.

use std::collections::BTreeMap;
use std::io;

use farmbell_protocol::agent_to_coordinator::AttemptPhase;
use farmbell_protocol::builder::{Builder, Effect, HostView, Record, Settings, Survivor};
use farmbell_protocol::client::bulk::LogGrowth;
use farmbell_protocol::id::{AttemptId, BootId};
use farmbell_protocol::spec::JobSpec;
use farmbell_protocol::time::Time;

use super::Driver;
use crate::attempt::{Found, attempts_in, make_directory};
use crate::attend::growth_of;
use crate::host::BuilderHost;
use crate::places;
use crate::spool::Spool;

/// A driver for a builder, and what it has to do at once.
pub(crate) fn restored(
    settings: Settings,
    records: Vec<Record>,
    host: BuilderHost,
    spool: Spool,
    boot: BootId,
    once: bool,
) -> io::Result<(Driver, Vec<Effect>)> {
    make_directory(&host.directory)?;
    places::spread(&host.directory);
    places::remove_spares(&host.directory)?;
    let specs = specs_in(&records);
    let mut survivors = Vec::new();
    let mut logs = BTreeMap::new();
    for attempt in attempts_in(&host.directory)? {
        let (survivor, log) = look(&host, attempt)?;
        survivors.push(survivor);
        logs.insert(attempt, log);
    }
    let view = HostView { boot, survivors };
    let (builder, effects) = Builder::restore(settings, records, &view, Time::ZERO);
    let mut driver = Driver::new(builder, host, spool, once);
    for survivor in view.survivors {
        let attempt = survivor.attempt;
        let spec = specs.get(&attempt).cloned();
        if survivor.running {
            driver.adopt(attempt, spec);
        } else {
            let growth = logs.remove(&attempt).unwrap_or_default();
            let sealed = survivor.phase == AttemptPhase::Sealed;
            driver.hold_ended(attempt, spec, growth, sealed);
        }
    }
    Ok((driver, effects))
}

fn specs_in(records: &[Record]) -> BTreeMap<AttemptId, Box<JobSpec>> {
    let mut specs = BTreeMap::new();
    for record in records {
        if let Record::Accepted { attempt, spec } = record {
            specs.insert(*attempt, spec.clone());
        }
    }
    specs
}

fn look(host: &BuilderHost, attempt: AttemptId) -> io::Result<(Survivor, LogGrowth)> {
    let dir = host.dir(attempt);
    let found = dir.look()?;
    let log_there = std::fs::metadata(dir.log()).map_or(0, |meta| meta.len());
    let unseen = LogGrowth {
        length: log_there,
        cuts: Vec::new(),
        ended: true,
    };
    let (running, end, log) = match found {
        Found::Running => (true, None, LogGrowth::default()),
        Found::Ended(record) => {
            let log = growth_of(&record);
            (false, Some(record.report), log)
        }
        Found::Died | Found::NeverRan => (false, None, unseen),
    };
    let phase = if dir.manifest().exists() {
        AttemptPhase::Sealed
    } else if end.is_some() {
        AttemptPhase::Ended
    } else if running || dir.has_begun()? {
        AttemptPhase::Running
    } else {
        AttemptPhase::Accepted
    };
    let survivor = Survivor {
        attempt,
        phase,
        running,
        end,
    };
    Ok((survivor, log))
}
