//! Messages of libraries are logged once.
//!
//! The AWS SDK warns of each configuration file that it cannot open, each time it loads its configuration. The agent's own
//! messages filter their repetitions where they know when a failure is over.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::entry::Entry;

/// How many messages are remembered; later ones are all logged.
const MOST: usize = 64;

static LOGGED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Whether a library has logged the same message before.
pub(super) fn is_repeated(entry: &Entry) -> bool {
    entry.is_of_library()
        && !is_news(&mut LOGGED.lock().unwrap_or_else(PoisonError::into_inner), &entry.message)
}

fn is_news(logged: &mut BTreeSet<String>, message: &str) -> bool {
    logged.len() >= MOST && !logged.contains(message) || logged.insert(message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_news_once_and_the_memory_is_bounded() {
        let mut logged = BTreeSet::new();
        assert!(is_news(&mut logged, "cannot open a"));
        assert!(!is_news(&mut logged, "cannot open a"));
        for number in 0..1_000 {
            assert!(is_news(&mut logged, &number.to_string()));
        }
        assert_eq!(logged.len(), MOST);
        assert!(!is_news(&mut logged, "cannot open a"));
        assert!(is_news(&mut logged, "cannot open z") && is_news(&mut logged, "cannot open z"));
    }
}
