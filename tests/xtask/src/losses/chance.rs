//! Random numbers from a seed. With the same seed, the faults strike every system at the same moments.

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    /// Starts a sequence of numbers.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// Returns `count` numbers from 1 to `bound`, sorted.
    pub(super) fn row(&mut self, count: usize, bound: u64) -> Vec<u64> {
        let mut row: Vec<u64> = (0..count).map(|_| 1 + self.below(bound)).collect();
        row.sort_unstable();
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let row = Chance::new(7).row(20, 1000);
        assert_eq!(row, Chance::new(7).row(20, 1000));
        assert_ne!(row, Chance::new(8).row(20, 1000));
        assert!(row.is_sorted() && row.iter().all(|number| (1..=1000).contains(number)));
    }
}
