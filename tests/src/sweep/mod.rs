//! Sweeps: one thing goes wrong at one place after another. `make test` does a short pass of each, `make e2e`
//! the whole.

pub mod calls;
pub mod changes;
pub mod signals;
pub mod together;

/// How much of a sweep a test does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// One pass that takes seconds.
    Short,
    /// Every case.
    Whole,
}

impl Extent {
    /// The cases to do; a short pass is the first of them.
    fn of<const N: usize, T>(self, cases: [T; N], short: usize) -> impl Iterator<Item = T> {
        let count = if self == Self::Short { short } else { N };
        cases.into_iter().take(count)
    }
}
