//! Chance that can be repeated: the seed is printed with the result, so that a run that failed can be had again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// A sequence that looks random and is the same for the same seed (`SplitMix64`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u64);

impl Seed {
    /// The sequence of a number.
    pub(crate) fn new(number: u64) -> Self {
        Self(number)
    }

    /// A number that was not used before, short enough to be typed.
    pub(crate) fn fresh() -> u64 {
        RandomState::new().build_hasher().finish() % 1_000_000
    }

    /// Another sequence, told by a number.
    pub(crate) fn branch(self, number: u64) -> Self {
        let mut other = Self(self.0 ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        other.next();
        other
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number below `limit`; 0 where that is 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }

    /// Whether something happens that happens in `percent` of all cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    pub(crate) fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let place = usize::try_from(self.below(all.len() as u64)).unwrap_or(0);
        all.get(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_sequences_and_branches_differ() {
        let (mut one, mut two) = (Seed::new(7), Seed::new(7));
        let mut other = Seed::new(7).branch(1);
        for _ in 0..100 {
            let fraction = one.fraction();
            assert!((0.0..1.0).contains(&fraction));
            assert!((fraction - two.fraction()).abs() < f64::EPSILON);
            assert!((fraction - other.fraction()).abs() > f64::EPSILON);
        }
    }

    #[test]
    fn every_number_comes() {
        let mut seed = Seed::new(7);
        let taken: Vec<u64> = (0..200).map(|_| seed.below(10)).collect();
        for number in 0..10 {
            assert!(taken.contains(&number), "{number} never comes");
        }
        assert_eq!((seed.below(0), seed.one_of::<u8>(&[])), (0, None));
    }
}
