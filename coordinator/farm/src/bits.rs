//! A growing set of small numbers, one bit each. Owns the bit arithmetic that
//! makes "which of these classes can that builder take" a few machine words.
//! Never knows what its numbers mean.

/// A set of small numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
}

const WORD: usize = u64::BITS as usize;

impl Bits {
    pub(crate) fn set(&mut self, at: usize) {
        let place = at / WORD;
        if self.words.len() <= place {
            self.words.resize(place + 1, 0);
        }
        self.words[place] |= 1 << (at % WORD);
    }

    pub(crate) fn clear(&mut self, at: usize) {
        if let Some(word) = self.words.get_mut(at / WORD) {
            *word &= !(1 << (at % WORD));
        }
    }

    pub(crate) fn has(&self, at: usize) -> bool {
        self.words
            .get(at / WORD)
            .is_some_and(|word| word & (1 << (at % WORD)) != 0)
    }

    /// The numbers of this set, rising.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.common(self)
    }

    /// The numbers in both sets, rising.
    pub(crate) fn common<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = usize> + 'a {
        self.words
            .iter()
            .zip(&other.words)
            .enumerate()
            .flat_map(|(place, (a, b))| {
                let mut word = a & b;
                std::iter::from_fn(move || {
                    if word == 0 {
                        return None;
                    }
                    let bit = usize::try_from(word.trailing_zeros()).ok()?;
                    word &= word - 1;
                    Some(place * WORD + bit)
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_sets_share_comes_in_order() {
        let (mut a, mut b) = (Bits::default(), Bits::default());
        for at in [64, 3, 200, 5] {
            a.set(at);
        }
        assert_eq!(a.words.len(), 4, "no longer than its largest number asks");
        for at in [200, 5, 64, 7] {
            b.set(at);
        }
        assert_eq!(a.common(&b).collect::<Vec<_>>(), [5, 64, 200]);
        a.clear(64);
        assert_eq!(a.iter().collect::<Vec<_>>(), [3, 5, 200]);
        assert!(!a.has(64) && a.has(200) && !a.has(100_000));
    }
}
