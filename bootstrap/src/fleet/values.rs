//! What AWS, and this program, take as a name, an address range, a tag. The same checks hold for
//! fleet files and for flags; a message says what was expected and, where that can be told, what
//! was probably meant.

use std::net::{Ipv4Addr, Ipv6Addr};

use instance_contract::ClusterName;

const NAME_RULE: &str = "expected a lower-case letter, then up to 19 lower-case letters, digits and hyphens, no hyphen at the end";

fn check(holds: bool, message: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message.into()) }
}

/// A cluster's name, as the group's may be one; AWS's names do not end with a hyphen.
fn is_name(text: &str) -> bool {
    ClusterName::has_form(text) && !text.ends_with('-')
}

/// A fleet's name: it is the balancer's, and begins the names of security groups and target groups.
///
/// # Errors
/// What was expected.
pub fn fleet_name(text: &str) -> Result<(), String> {
    check(is_name(text), NAME_RULE)?;
    let refused = [("internal-", "balancers"), ("sg-", "security groups")];
    let whole = format!("{text}-");
    // A balancer has the bare name, security groups have more after it.
    match refused.iter().find(|(prefix, of)| match *of {
        "balancers" => text.starts_with(prefix),
        _ => whole.starts_with(prefix),
    }) {
        Some((prefix, of)) => Err(format!("AWS has no {of} with names that begin with {prefix}")),
        None => Ok(()),
    }
}

/// A group's name, which with `paths` is also the cluster's.
///
/// # Errors
/// What was expected.
pub fn group_name(text: &str, paths: bool) -> Result<(), String> {
    check(is_name(text), NAME_RULE)?;
    check(
        !paths || !ClusterName::is_reserved(text),
        format!("/{text} is the agent's own path; choose another name or set paths = false"),
    )
}

/// Whether a target group's name is short enough.
///
/// # Errors
/// It is not.
pub fn target_group(fleet: &str, group: &str) -> Result<(), String> {
    let name = format!("{fleet}-{group}");
    check(name.len() <= 32, format!("the target group would be {name}, longer than 32 characters"))
}

/// A region's name.
///
/// # Errors
/// What was expected.
pub fn region(text: &str) -> Result<(), String> {
    check(region_of(text) == Some(text), "expected a region such as us-east-1")
}

/// An availability zone's name.
///
/// # Errors
/// What was expected.
pub fn zone(text: &str) -> Result<(), String> {
    let rest = region_of(text).and_then(|region| text.strip_prefix(region)).unwrap_or_default();
    let ends = rest.ends_with(|c: char| c.is_ascii_lowercase());
    check(ends && (rest.len() == 1 || rest.starts_with('-')), "expected zones such as us-east-1a")
}

/// The region that a region's or zone's name begins with: all up to the first number.
pub(super) fn region_of(text: &str) -> Option<&str> {
    let number = text.find(|c: char| c.is_ascii_digit())?;
    let digits = text[number..].bytes().take_while(u8::is_ascii_digit).count();
    let words: Vec<&str> = text[..number].strip_suffix('-')?.split('-').collect();
    let is_word = |word: &&str| word.len() >= 2 && word.bytes().all(|b| b.is_ascii_lowercase());
    (words.len() >= 2 && words.iter().all(is_word)).then_some(&text[..number + digits])
}

/// A machine image: an id, or the name of a public one.
///
/// # Errors
/// What was expected.
pub fn image(text: &str) -> Result<(), String> {
    let expected = "expected an id (ami- and 8 or 17 hex digits) or a name such as ubuntu-22.04";
    match text.strip_prefix("ami-") {
        Some(id) => {
            let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            check(matches!(id.len(), 8 | 17) && id.bytes().all(is_hex), expected)
        }
        None => {
            let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
            check(!text.is_empty() && text.bytes().all(is_plain), expected)
        }
    }
}

/// An instance type.
///
/// # Errors
/// What was expected.
pub fn instance_type(text: &str) -> Result<(), String> {
    let is_plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let right = text.split_once('.').is_some_and(|(family, size)| is_plain(family) && is_plain(size));
    check(right, "expected an instance type such as t3.micro")
}

/// A key pair's name.
///
/// # Errors
/// What was expected.
pub fn key_pair(text: &str) -> Result<(), String> {
    let fits = (1..=255).contains(&text.len()) && text.trim() == text;
    let right = fits && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    check(right, "expected a key pair's name: at most 255 ASCII characters")
}

/// An instance profile's name.
///
/// # Errors
/// What was expected.
pub fn instance_profile(text: &str) -> Result<(), String> {
    let is_right = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
    let right = (1..=128).contains(&text.len()) && text.bytes().all(is_right);
    check(
        right,
        "expected an instance profile's name (not its ARN): at most 128 letters, digits and any of _+=,.@-",
    )
}

/// A range of IPv4 addresses, such as `203.0.113.0/24`.
///
/// # Errors
/// What was expected, and which range was probably meant.
pub fn cidr(text: &str) -> Result<(), String> {
    let expected = "expected IPv4 addresses such as 203.0.113.0/24";
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    if address.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("{expected}: the balancer and the instances have no IPv6 addresses"));
    }
    let address: Ipv4Addr = address.parse().map_err(|_| format!("{expected}, found {text:?}"))?;
    if !text.contains('/') {
        return Err(format!("{expected}; did you mean {address}/32?"));
    }
    // As AWS writes it back: without sign and leading zero, or a re-run would see a difference.
    let length = bits.parse::<u32>().ok().filter(|length| *length <= 32 && length.to_string() == bits);
    let length = length.ok_or_else(|| format!("{expected}: after / comes a number from 0 to 32"))?;
    let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
    let network = Ipv4Addr::from(u32::from(address) & mask);
    check(
        network == address,
        format!("{text} is an address within a range, not a range; did you mean {network}/{length}?"),
    )
}

/// SHA-256 as lower-case hex digits.
///
/// # Errors
/// What was expected.
pub fn sha256(text: &str) -> Result<(), String> {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    check(
        text.len() == 64 && text.bytes().all(is_hex),
        "expected 64 lower-case hex digits, as sha256sum prints",
    )
}

/// A package's address.
///
/// # Errors
/// What was expected.
pub fn package_url(text: &str) -> Result<(), String> {
    let host = text.split('/').nth(2).unwrap_or_default();
    if host.contains('@') {
        return Err(
            "leave the user name and the password out: everybody who may look at the fleet could read them; an address \
             with a signature in its query is kept secret"
                .to_owned(),
        );
    }
    check(!text.ends_with('?'), "leave the ? at the end out: no query follows it")?;
    check(
        text.len() <= 2048 && is_url(text),
        "expected a URL that begins with http:// or https://, at most 2048 characters, other than ASCII letters, \
         digits and -._~:/?#[]@!$&()*+,;=% encoded",
    )
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let has_host = rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['));
    let is_right = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&()*+,;=%".contains(&b);
    has_host && text.bytes().all(is_right)
}

/// A line for `sources.list.d`, one-line style, without the key.
///
/// # Errors
/// What was expected.
pub fn apt_line(text: &str) -> Result<(), String> {
    let expected = "expected one line such as \"deb https://example.com/debian stable main\"";
    let rest = text.strip_prefix("deb ").ok_or(expected)?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']').ok_or(expected)?,
        None => ("", rest),
    };
    if options.to_ascii_lowercase().contains("signed-by") {
        return Err(
            "leave signed-by out: the repository is trusted by the key that package.key names".to_owned()
        );
    }
    if let Some(option) = options.split_ascii_whitespace().find(|option| !is_harmless(option)) {
        return Err(format!(
            "leave [{option}] out: arch, lang, target, pdiffs and by-hash are options that leave the repository's \
             signature checked"
        ));
    }
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b" -._~:/@+,=%".contains(&b);
    let mut words = rest.split_ascii_whitespace();
    let url = words.next().is_some_and(is_url);
    let suite = words.next();
    // A suite that is a folder ("./") takes no components, any other takes at least one.
    let complete = suite.is_some_and(|suite| suite.ends_with('/') != words.next().is_some());
    check(url && complete && options.bytes().chain(rest.bytes()).all(is_plain), expected)
}

/// Whether an option of an apt source leaves all checks on. Of others (`trusted`, `allow-insecure`, `allow-weak`, …) at
/// least one switches some off.
fn is_harmless(option: &str) -> bool {
    let name = option.split_once('=').map_or(option, |(name, _)| name.trim_end_matches(['+', '-']));
    ["arch", "lang", "target", "pdiffs", "by-hash"].iter().any(|harmless| name.eq_ignore_ascii_case(harmless))
}

/// An apt repository's public key.
///
/// # Errors
/// What was expected.
pub fn armoured_key(text: &str) -> Result<(), String> {
    const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
    const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";
    let text = text.trim();
    if text.contains("PRIVATE KEY") {
        return Err("this is a private key, which belongs on no instance; export the public one".to_owned());
    }
    check(
        text.starts_with(BEGIN) && text.ends_with(END) && text.is_ascii(),
        "expected an ASCII-armoured public key, as `gpg --armor --export` writes it",
    )
}

/// A tag's key. Instances publish their tags in their metadata, where fewer characters are allowed
/// than elsewhere; balancers and roles allow no comma.
///
/// # Errors
/// What was expected.
pub fn tag_key(text: &str) -> Result<(), String> {
    let is_right = |c: char| c.is_ascii_alphanumeric() || "+-=._:@".contains(c);
    check(
        (1..=127).contains(&text.len()) && text.chars().all(is_right),
        "a tag's key has 1 to 127 letters, digits and any of + - = . _ : @",
    )?;
    check(
        !matches!(text, "." | ".." | "_index"),
        "an instance cannot publish a tag of this name in its metadata",
    )?;
    let lower = text.to_ascii_lowercase();
    check(!lower.starts_with("aws:"), "keys that begin with aws: are AWS's own")?;
    check(
        !lower.starts_with("instance-agent:") && text != "Name",
        "Name and keys that begin with instance-agent: are set by bootstrap itself",
    )
}

/// A tag's value.
///
/// # Errors
/// What was expected.
pub fn tag_value(text: &str) -> Result<(), String> {
    let is_right = |c: char| c.is_alphanumeric() || " +-=._:/@".contains(c);
    check(
        text.chars().count() <= 256 && text.chars().all(is_right),
        "a tag's value has at most 256 letters, digits, spaces and any of + - = . _ : / @",
    )
}
