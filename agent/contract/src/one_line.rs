//! Makes text from outside safe for a line of a log, a terminal, a status or a body.

/// `text` as one line of at most `longest` characters, for text from AWS, the metadata service, a tag, a file or a
/// request. Control characters, line separators and bidirectional marks become spaces: they could start a new line,
/// control a terminal or reorder the text. Cut text ends in `…`.
#[must_use]
pub fn one_line(text: &str, longest: usize) -> String {
    let plain = |c: char| if is_plain(c) { c } else { ' ' };
    match text.char_indices().nth(longest) {
        None => text.chars().map(plain).collect(),
        Some(_) => text.chars().take(longest.saturating_sub(1)).map(plain).chain(['…']).collect(),
    }
}

/// `text` with its line breaks; the other characters that [`one_line`] replaces become spaces. For a writer that does not
/// know where its text comes from.
#[must_use]
pub fn plain_lines(text: &str) -> String {
    text.chars().map(|c| if c == '\n' || is_plain(c) { c } else { ' ' }).collect()
}

/// Whether `c` is not a control character, a line separator or a bidirectional mark.
#[must_use]
pub fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{2028}' | '\u{2029}'
            | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_begins_a_line_steers_a_terminal_or_turns_text_round() {
        assert_eq!(one_line("STATUS\nWATCHDOG=trigger\r\0", 99), "STATUS WATCHDOG=trigger  ");
        assert_eq!(one_line("\u{1b}[31mred\u{9b}0m\u{7f}", 99), " [31mred 0m ");
        assert_eq!(one_line("a\u{202e}cba\u{2066}\u{2029}z", 99), "a cba  z");
        assert_eq!(one_line("Größe – 大きさ", 99), "Größe – 大きさ", "what people write stays");
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(plain_lines("one\r\n\ttwo\u{1b}[2J\u{202e}\n"), "one \n two [2J \n");
    }

    #[test]
    fn what_is_cut_off_is_told() {
        assert_eq!(one_line("four", 4), "four");
        assert_eq!(one_line("fives", 4), "fiv…");
        assert_eq!(one_line("äöüß!", 4), "äöü…");
    }
}
