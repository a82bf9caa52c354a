//! The median and the range of the results of several rounds.

/// The results of several rounds, in ascending order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures(Vec<f64>);

impl Figures {
    /// Returns the median. For an even number of rounds, this is the mean of the two results in the middle.
    pub(super) fn median(&self) -> Option<f64> {
        let (half, odd) = (self.0.len() / 2, self.0.len() % 2 == 1);
        let upper = *self.0.get(half)?;
        Some(if odd { upper } else { f64::midpoint(self.0[half - 1], upper) })
    }

    /// Returns the median, and the range in parentheses.
    pub(super) fn text(&self, decimals: usize) -> String {
        let (Some(median), Some(least), Some(most)) =
            (self.median(), self.0.first(), self.0.last())
        else {
            return "-".to_owned();
        };
        format!("{median:.decimals$} ({least:.decimals$}–{most:.decimals$})")
    }
}

impl FromIterator<f64> for Figures {
    fn from_iter<I: IntoIterator<Item = f64>>(numbers: I) -> Self {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        Self(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(numbers: &[f64], expected: &str) {
        assert_eq!(numbers.iter().copied().collect::<Figures>().text(1), expected);
    }

    #[test]
    fn the_median_of_an_odd_number_of_rounds_is_the_middle_one() {
        check(&[9.0, 1.0, 2.0], "2.0 (1.0–9.0)");
    }

    #[test]
    fn the_median_of_an_even_number_of_rounds_is_the_mean_of_the_middle_two() {
        check(&[4.0, 1.0, 2.0, 9.0], "3.0 (1.0–9.0)");
    }

    #[test]
    fn one_round_is_its_own_range() {
        check(&[1.25], "1.2 (1.2–1.2)");
    }

    #[test]
    fn no_rounds_are_shown_as_a_dash() {
        check(&[], "-");
    }
}
