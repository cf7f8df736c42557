//! Maps and sets that are filled one entry after the other.

/// `collect` for what root loads.
///
/// Into a `BTreeMap` or `BTreeSet`, `collect` sorts first, and brings a stable
/// sort of some 7 kB for each type. The objects have a dozen such types, of a
/// handful of entries each.
pub trait Gather: Iterator + Sized {
    /// Adds every item to an empty collection; of equal keys the last one wins,
    /// as with `collect`.
    fn gather<C: Default + Extend<Self::Item>>(self) -> C {
        let mut all = C::default();
        all.extend(self);
        all
    }
}

impl<I: Iterator> Gather for I {}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn what_is_gathered_is_what_collect_makes_of_it() {
        let pairs = [(2, 'b'), (1, 'a'), (2, 'c')];
        let collected: BTreeMap<i32, char> = pairs.into_iter().collect();
        assert_eq!(pairs.into_iter().gather::<BTreeMap<_, _>>(), collected);
        let keys: BTreeSet<i32> = pairs.iter().map(|pair| pair.0).gather();
        assert_eq!(keys, BTreeSet::from([1, 2]));
    }
}
