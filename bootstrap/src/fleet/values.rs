//! The form of names, address ranges, tags and other values that AWS and this program accept. Fleet files and flags
//! have the same checks. A message says which form is expected and, where it can be guessed, the right value.

use std::net::{Ipv4Addr, Ipv6Addr};

use instance_contract::ClusterName;

const NAME_RULE: &str = "expected a lower-case letter, then up to 19 lower-case letters, digits and hyphens, no hyphen at the end";

fn check(holds: bool, message: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message.into()) }
}

/// The form of a cluster's name, since a group can be a cluster; AWS refuses a hyphen at the end.
fn is_name(text: &str) -> bool {
    ClusterName::has_form(text) && !text.ends_with('-')
}

/// A fleet's name. The load balancer has the same name; security groups and target groups have names that begin with it.
///
/// # Errors
/// The text has another form.
pub fn fleet_name(text: &str) -> Result<(), String> {
    check(is_name(text), NAME_RULE)?;
    let refused = [("internal-", "load balancers"), ("sg-", "security groups")];
    let whole = format!("{text}-");
    // The load balancer has this name; a hyphen and a word follow it in the names of security groups.
    match refused.iter().find(|(prefix, of)| match *of {
        "load balancers" => text.starts_with(prefix),
        _ => whole.starts_with(prefix),
    }) {
        Some((prefix, of)) => {
            Err(format!("AWS refuses {of} whose names begin with {prefix}: choose another name"))
        }
        None => Ok(()),
    }
}

/// A group's name; with `paths` it is also the name of the cluster.
///
/// # Errors
/// The text has another form.
pub fn group_name(text: &str, paths: bool) -> Result<(), String> {
    check(is_name(text), NAME_RULE)?;
    check(
        !paths || !ClusterName::is_reserved(text),
        format!("/{text} is a path of the agent itself: choose another name or set paths = false"),
    )
}

/// The name of a group's target group.
///
/// # Errors
/// The name is too long.
pub fn target_group(fleet: &str, group: &str) -> Result<(), String> {
    let name = format!("{fleet}-{group}");
    let long = name.len();
    let message =
        format!("the target group's name {name} has {long} characters, and AWS takes 32: shorten the name");
    check(long <= 32, message)
}

/// A region's name.
///
/// # Errors
/// The text has another form.
pub fn region(text: &str) -> Result<(), String> {
    check(region_of(text) == Some(text), "expected a region such as us-east-1")
}

/// An availability zone's name.
///
/// # Errors
/// The text has another form.
pub fn zone(text: &str) -> Result<(), String> {
    let rest = region_of(text).and_then(|region| text.strip_prefix(region)).unwrap_or_default();
    let ends = rest.ends_with(|c: char| c.is_ascii_lowercase());
    let right = ends && (rest.len() == 1 || rest.starts_with('-'));
    check(right, format!("expected an availability zone such as us-east-1a, found {text:?}"))
}

/// The region at the beginning of a region's or zone's name: all up to the first number.
pub(super) fn region_of(text: &str) -> Option<&str> {
    let number = text.find(|c: char| c.is_ascii_digit())?;
    let digits = text[number..].bytes().take_while(u8::is_ascii_digit).count();
    let words: Vec<&str> = text[..number].strip_suffix('-')?.split('-').collect();
    let is_word = |word: &&str| word.len() >= 2 && word.bytes().all(|b| b.is_ascii_lowercase());
    (words.len() >= 2 && words.iter().all(is_word)).then_some(&text[..number + digits])
}

/// The names of public images; `cloud/image.rs` knows where to find them.
pub const IMAGE_NAMES: [&str; 4] = ["ubuntu-22.04", "ubuntu-24.04", "debian-12", "debian-13"];

/// A machine image: an id, or one of [`IMAGE_NAMES`].
///
/// # Errors
/// The text is neither.
pub fn image(text: &str) -> Result<(), String> {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let known = match text.strip_prefix("ami-") {
        Some(id) => matches!(id.len(), 8 | 17) && id.bytes().all(is_hex),
        None => IMAGE_NAMES.contains(&text),
    };
    let names = IMAGE_NAMES.join(", ");
    check(known, format!("expected an id (ami- and 8 or 17 hex digits) or one of {names}"))
}

/// An instance type.
///
/// # Errors
/// The text has another form.
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
/// The text has another form.
pub fn key_pair(text: &str) -> Result<(), String> {
    let fits = (1..=255).contains(&text.len()) && text.trim() == text;
    let right = fits && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    check(right, "expected a key pair's name: at most 255 ASCII characters")
}

/// An instance profile's name.
///
/// # Errors
/// The text has another form.
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
/// The text has another form; the message suggests the range.
pub fn cidr(text: &str) -> Result<(), String> {
    let expected = "expected IPv4 addresses such as 203.0.113.0/24";
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    if address.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("{expected}: the load balancer and the instances have no IPv6 addresses"));
    }
    let address: Ipv4Addr = address.parse().map_err(|_| format!("{expected}, found {text:?}"))?;
    if !text.contains('/') {
        return Err(format!("{expected}; did you mean {address}/32?"));
    }
    // AWS returns the number without sign and leading zero; another spelling would be a difference in the next run.
    let length = bits.parse::<u32>().ok().filter(|length| *length <= 32 && length.to_string() == bits);
    let length = length.ok_or_else(|| format!("{expected}: after / expected a number from 0 to 32"))?;
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
/// The text has another form.
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
/// The text has another form.
pub fn package_url(text: &str) -> Result<(), String> {
    let host = text.split(['/', '?', '#']).nth(2).unwrap_or_default();
    if host.contains('@') {
        return Err(
            "leave user name and password out, which the fleet's tags would show; bootstrap keeps an address with a \
             signature in its query secret"
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
/// The text has another form.
pub fn apt_line(text: &str) -> Result<(), String> {
    let expected = "expected one line such as \"deb https://example.com/debian stable main\"";
    let rest = text.strip_prefix("deb ").ok_or(expected)?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']').ok_or(expected)?,
        None => ("", rest),
    };
    if options.to_ascii_lowercase().contains("signed-by") {
        return Err(
            "delete signed-by: apt checks the repository with the key that package.key names".to_owned()
        );
    }
    if let Some(option) = options.split_ascii_whitespace().find(|option| !is_harmless(option)) {
        return Err(format!(
            "delete [{option}]: with arch, lang, target, pdiffs and by-hash alone apt checks the repository's signature"
        ));
    }
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b" -._~:/@+,=%".contains(&b);
    let mut words = rest.split_ascii_whitespace();
    let url = words.next().is_some_and(is_url);
    let suite = words.next();
    // A suite that is a folder ("./") has no components, any other at least one.
    let complete = suite.is_some_and(|suite| suite.ends_with('/') != words.next().is_some());
    check(url && complete && options.bytes().chain(rest.bytes()).all(is_plain), expected)
}

/// Whether apt makes all its checks despite this option of a source. Options such as `trusted`, `allow-insecure` and
/// `allow-weak` switch checks off.
fn is_harmless(option: &str) -> bool {
    let name = option.split_once('=').map_or(option, |(name, _)| name.trim_end_matches(['+', '-']));
    ["arch", "lang", "target", "pdiffs", "by-hash"].iter().any(|harmless| name.eq_ignore_ascii_case(harmless))
}

/// An apt repository's public key.
///
/// # Errors
/// The text has another form.
pub fn armoured_key(text: &str) -> Result<(), String> {
    const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
    const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";
    let text = text.trim();
    if text.contains("PRIVATE KEY") {
        return Err("this is a private key: export the public one with `gpg --armor --export`".to_owned());
    }
    check(
        text.starts_with(BEGIN) && text.ends_with(END) && text.is_ascii(),
        "expected an ASCII-armoured public key, as `gpg --armor --export` writes it",
    )
}

/// A tag's key. Instances publish their tags in their metadata, which allows the fewest characters; load balancers
/// and roles allow no comma.
///
/// # Errors
/// The text has another form.
pub fn tag_key(text: &str) -> Result<(), String> {
    let is_right = |c: char| c.is_ascii_alphanumeric() || "+-=._:@".contains(c);
    check(
        (1..=127).contains(&text.len()) && text.chars().all(is_right),
        "a tag's key has 1 to 127 letters, digits and any of + - = . _ : @",
    )?;
    check(
        !matches!(text, "." | ".." | "_index"),
        "instance metadata takes no tag of this name: choose another",
    )?;
    let lower = text.to_ascii_lowercase();
    check(!lower.starts_with("aws:"), "AWS reserves keys that begin with \"aws:\": choose another")?;
    check(
        !lower.starts_with("instance-agent:") && text != "Name",
        "bootstrap itself sets Name and keys that begin with \"instance-agent:\": delete this one",
    )
}

/// A tag's value.
///
/// # Errors
/// The text has another form.
pub fn tag_value(text: &str) -> Result<(), String> {
    let is_right = |c: char| c.is_alphanumeric() || " +-=._:/@".contains(c);
    check(
        text.chars().count() <= 256 && text.chars().all(is_right),
        "a tag's value has at most 256 letters, digits, spaces and any of + - = . _ : / @",
    )
}
