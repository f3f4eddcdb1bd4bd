//! Chance that can be repeated: the seed is printed with the result.

/// A sequence that looks random and is not (splitmix64).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seed(u64);

impl Seed {
    /// The sequence of a number.
    pub(super) fn new(number: u64) -> Self {
        Self(number)
    }

    /// Another sequence, told by a number.
    pub(super) fn branch(self, number: u64) -> Self {
        let mut other = Self(self.0 ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        other.next();
        other
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(super) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
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
}
