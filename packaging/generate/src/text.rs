//! Text in lines.

/// Breaks `text` into lines of at most 78 characters: the first begins with `first`, the others
/// with `rest`.
pub(crate) fn wrap(text: &str, first: &str, rest: &str) -> String {
    let mut wrapped = String::new();
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > 78 {
            wrapped.push_str(line.trim_end());
            wrapped.push('\n');
            line = rest.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    wrapped.push_str(line.trim_end());
    wrapped.push('\n');
    wrapped
}

/// The pieces of a list, each at most once, in order of their names.
pub(crate) fn sorted<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut pieces: Vec<&str> = pieces.into_iter().collect();
    pieces.sort_unstable();
    pieces.dedup();
    pieces
}
