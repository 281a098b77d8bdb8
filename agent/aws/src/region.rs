//! The region that the environment or a profile names.

use aws_config::Region;
use aws_config::meta::region::ProvideRegion as _;
use aws_config::profile::region::ProfileFileRegionProvider;

/// The region in `AWS_REGION`, `AWS_DEFAULT_REGION` or the profile. A blank value is skipped.
pub async fn region_from_environment() -> Option<Region> {
    let named = ["AWS_REGION", "AWS_DEFAULT_REGION"].map(|name| std::env::var(name).ok());
    match named.into_iter().flatten().find_map(given) {
        Some(region) => Some(region),
        None => given(ProfileFileRegionProvider::new().region().await?.to_string()),
    }
}

fn given(text: String) -> Option<Region> {
    let text = text.trim();
    (!text.is_empty()).then(|| Region::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_names_no_region() {
        assert_eq!(given(" \t".to_owned()), None);
        assert_eq!(given("us-east-1\n".to_owned()), Some(Region::new("us-east-1")));
    }
}
