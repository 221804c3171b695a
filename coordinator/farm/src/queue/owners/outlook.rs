//! The outlook: what the turns will bring, for people who ask. Owns the order
//! in which waiting jobs would start. Changes nothing, and looks at no more jobs than it tells of.

use std::cmp::Reverse;
use std::collections::btree_set::Iter;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use farmbell_protocol::id::JobId;

use super::{Owner, OwnerId, Owners};
use crate::queue::{ClassId, Rank};

/// What a turn costs while nobody knows how long it takes: the charge for an
/// assignment (leases.rs).
pub(super) const TURN: Duration = Duration::from_secs(60);

impl Owners {
    /// The first jobs in the order their owners' turns bring; behind them
    /// those of owners at their limits.
    pub(in crate::queue) fn first(&self, limit: usize) -> Vec<JobId> {
        let mut jobs = Vec::new();
        let mut owners: BTreeMap<OwnerId, (u64, Upcoming<'_>)> = BTreeMap::new();
        let mut in_turn: BinaryHeap<_> = self.turn.iter().copied().map(Reverse).collect();
        let mut at_limit: BinaryHeap<_> = self
            .numbered()
            .filter(|(_, owner)| !owner.below_limit())
            .map(|(id, owner)| Reverse((owner.virtual_time, id)))
            .collect();
        while jobs.len() < limit {
            let Some(Reverse((time, id))) = in_turn.pop().or_else(|| at_limit.pop()) else {
                break;
            };
            let owner = &self.owners[id.index()];
            let (started, upcoming) = owners
                .entry(id)
                .or_insert_with(|| (0, Upcoming::of(owner, |_| true)));
            let Some((_, job, _)) = upcoming.next() else {
                continue;
            };
            jobs.push(job);
            *started += 1;
            let next = Reverse((time.saturating_add(owner.cost(TURN.as_secs())), id));
            if owner.has_room_beside(*started) {
                in_turn.push(next);
            } else {
                at_limit.push(next);
            }
        }
        jobs
    }
}

type Jobs<'a> = Iter<'a, (Rank, JobId)>;

/// Jobs of some classes, of one owner, in the order they start.
struct Upcoming<'a> {
    /// The first of each class, and those behind it.
    heads: BTreeMap<(Rank, JobId), (ClassId, Jobs<'a>)>,
}

impl<'a> Upcoming<'a> {
    fn of(owner: &'a Owner, counts: impl Fn(ClassId) -> bool) -> Self {
        let classes = owner.queues.iter().filter(|(class, _)| counts(**class));
        let heads = classes.filter_map(|(class, queue)| {
            let mut jobs = queue.iter();
            Some((*jobs.next()?, (*class, jobs)))
        });
        Self {
            heads: heads.collect(),
        }
    }
}

impl Iterator for Upcoming<'_> {
    type Item = (Rank, JobId, ClassId);

    fn next(&mut self) -> Option<Self::Item> {
        let ((rank, job), (class, mut behind)) = self.heads.pop_first()?;
        if let Some(next) = behind.next() {
            self.heads.insert(*next, (class, behind));
        }
        Some((rank, job, class))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{CLASS, owners, push, push_to};
    use super::*;

    fn first(owners: &Owners, most: usize) -> Vec<u64> {
        owners.first(most).iter().map(|job| job.0).collect()
    }

    // Until 0.1 each owner's jobs stood together, and a hundred of one hid all
    // others; they start in turns.
    #[test]
    fn the_first_are_told_in_turns_and_no_more_than_asked() {
        let (mut owners, [one, two]) = owners([(1, None); 2]);
        for job in [4, 2, 6] {
            push(&mut owners, one, job);
        }
        push_to(&mut owners, one, CLASS + 1, 3);
        for job in [1, 5] {
            push(&mut owners, two, job);
        }
        assert_eq!(first(&owners, 9), [2, 1, 3, 5, 4, 6]);
        assert_eq!(first(&owners, 3), [2, 1, 3]);
        assert_eq!(first(&owners, 0), [0; 0]);
        owners.charge(one, 100);
        assert_eq!(first(&owners, 9), [1, 5, 2, 3, 4, 6], "a turn is a minute");
    }

    #[test]
    fn a_weight_is_so_many_turns_and_at_a_limit_there_is_none() {
        let (mut owners, [double, one, limited, full]) =
            owners([(2, None), (1, None), (1, Some(2)), (1, Some(1))]);
        for job in 0..4 {
            push(&mut owners, double, 10 + job);
            push(&mut owners, limited, 30 + job);
            push(&mut owners, full, 40 + job);
        }
        push(&mut owners, one, 20);
        owners.starts(limited);
        owners.starts(full);
        let in_turn = [10, 20, 30, 11, 12, 13];
        let then = [40, 31, 41, 32, 42, 33, 43];
        assert_eq!(first(&owners, 99), [&in_turn[..], &then[..]].concat());
    }
}
