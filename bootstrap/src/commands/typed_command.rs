//! The command as it was typed, for messages that suggest to repeat it.

/// This process's command, as it can be pasted into a shell; with the region, where it does not name one.
pub(super) fn typed_command(region: &str) -> String {
    line(std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()), region)
}

fn line(words: impl IntoIterator<Item = String>, region: &str) -> String {
    let words: Vec<_> = words.into_iter().collect();
    let names_region = words.iter().any(|word| word == "--region" || word.starts_with("--region="));
    let mut line: Vec<_> =
        ["bootstrap".to_owned()].into_iter().chain(words.iter().map(|word| quoted(word))).collect();
    if !names_region {
        line.extend(["--region".to_owned(), region.to_owned()]);
    }
    line.join(" ")
}

/// The word as a shell reads it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_what_was_typed() {
        let said = |words: &[&str]| line(words.iter().map(|word| (*word).to_owned()), "eu-west-1");
        assert_eq!(
            said(&["launch", "mid.toml", "--deb", "my file.deb"]),
            "bootstrap launch mid.toml --deb 'my file.deb' --region eu-west-1"
        );
        assert_eq!(said(&["scale", "a=2", "--region=us-east-1"]), "bootstrap scale a=2 --region=us-east-1");
        assert_eq!(said(&["launch", "it's", ""]), r"bootstrap launch 'it'\''s' '' --region eu-west-1");
    }
}
