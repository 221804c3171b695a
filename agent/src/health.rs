//! Whether a builder's host can take another attempt: its disk, its heat. Owns
//! the look and its words. When to look is the driver's: whenever what the
//! builder does may have changed the answer, and by the clock only while it
//! is too hot, since cooling down is nobody's doing.

use std::path::Path;

use farmbell_protocol::agent_to_coordinator::Fitness;
use farmbell_protocol::builder::Event;

use crate::facts;
use crate::heat;
use crate::host::BuilderHost;

/// Looks; what was found is for the brain. Blocking.
pub(crate) fn look(host: &BuilderHost) -> Event {
    let place = &host.directory;
    let (fitness, why) = judge(
        place,
        host.name.as_str(),
        facts::is_read_only(place),
        facts::free_bytes(place),
        host.disk_low_bytes,
    );
    let slowed = (fitness == Fitness::Fit)
        .then(|| heat::slowed_by(Path::new(heat::SYS)))
        .flatten();
    match slowed {
        Some(why) => Event::Fitness {
            fitness: Fitness::Throttled,
            why,
        },
        None => Event::Fitness { fitness, why },
    }
}

fn judge(place: &Path, builder: &str, read_only: bool, free: u64, low: u64) -> (Fitness, String) {
    let place = place.display();
    let then = format!("then: farmbell builder reset {builder}");
    if read_only {
        let why = format!(
            "{place} cannot be written, its disk may be broken; look: dmesg | tail; mend it, {then}"
        );
        return (Fitness::ReadOnly, why);
    }
    if free < low {
        let why = format!(
            "{} MiB are free in {place}, fewer than {}; free some, {then}",
            free >> 20,
            low >> 20
        );
        return (Fitness::DiskLow, why);
    }
    (Fitness::Fit, String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_is_told_with_what_to_do() {
        let at = |read_only, free, low| judge(Path::new("/w"), "b1", read_only, free, low);
        let (fitness, why) = at(true, 0, 1);
        assert_eq!(fitness, Fitness::ReadOnly);
        assert!(
            why.contains("dmesg") && why.contains("builder reset b1"),
            "{why}"
        );
        let (fitness, why) = at(false, (5 << 20) - 1, 5 << 20);
        assert_eq!(fitness, Fitness::DiskLow);
        assert!(why.contains("4 MiB are free in /w, fewer than 5"), "{why}");
        assert_eq!(at(false, 5 << 20, 5 << 20).0, Fitness::Fit);
        assert_eq!(at(false, 0, 0).0, Fitness::Fit, "0 is no limit");
    }
}
