//! Medians, and how sure one can be of their ratio.

/// Resamples of the bootstrap.
const RESAMPLES: usize = 4000;

/// The median; NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len(), sorted.len() % 2) {
        (0, _) => f64::NAN,
        (_, 1) => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The ratio of two medians and the middle 95 % of its bootstrap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Of the medians themselves.
    pub ratio: f64,
    /// Below it lie 2.5 % of the resamples.
    pub low: f64,
    /// Above it lie as many.
    pub high: f64,
}

/// `median(values) / median(base)`. Rounds are resampled whole, since what
/// disturbs a round disturbs all that ran in it.
pub fn ratio(values: &[f64], base: &[f64]) -> Ratio {
    let rounds = values.len().min(base.len());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut ratios: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let (a, b): (Vec<f64>, Vec<f64>) = (0..rounds)
                .map(|_| {
                    let round = random.below(rounds);
                    (values[round], base[round])
                })
                .unzip();
            median(&a) / median(&b)
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios[((ratios.len() - 1) as f64 * share).round() as usize];
    Ratio {
        ratio: median(values) / median(base),
        low: at(0.025),
        high: at(0.975),
    }
}

/// Marsaglia's xorshift64: the same in every run, and good enough to resample.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_middles() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn what_is_always_a_tenth_slower_has_that_ratio_and_no_doubt() {
        let base: Vec<f64> = (1..40).map(f64::from).collect();
        let slower: Vec<f64> = base.iter().map(|value| value * 1.1).collect();
        let found = ratio(&slower, &base);
        for value in [found.ratio, found.low, found.high] {
            assert!((value - 1.1).abs() < 1e-9, "{found:?}");
        }
    }

    #[test]
    fn noise_widens_the_interval_around_the_ratio() {
        let mut random = Random(1);
        let mut noisy = || {
            (0..40)
                .map(|_| 100.0 + random.below(20) as f64)
                .collect::<Vec<_>>()
        };
        let found = ratio(&noisy(), &noisy());
        assert!(found.low < 1.0 && found.high > 1.0, "{found:?}");
    }
}
