//! Machine images: from the name in a fleet file to one that can be launched.

use aws_sdk_ec2::types::{DeviceType, ImageState, PlatformValues};

use super::{CallError, Cloud, call};
use crate::fleet::values::IMAGE_NAMES;
use crate::plan::surroundings::Image;

/// For each of [`IMAGE_NAMES`] the public parameter in which the image's
/// publisher keeps the newest one's id, with `ARCH` in place of Debian's name for the processor.
const NAMES: [(&str, &str); 4] = [
    ("ubuntu-22.04", "/aws/service/canonical/ubuntu/server/22.04/stable/current/ARCH/hvm/ebs-gp2/ami-id"),
    ("ubuntu-24.04", "/aws/service/canonical/ubuntu/server/24.04/stable/current/ARCH/hvm/ebs-gp3/ami-id"),
    ("debian-12", "/aws/service/debian/release/12/latest/ARCH"),
    ("debian-13", "/aws/service/debian/release/13/latest/ARCH"),
];

/// Why there is no such image.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// Neither an id nor a known name.
    #[error("image {0:?} is neither an id (ami-...) nor a known name ({known})", known = known_names())]
    Unknown(String),
    /// The agent does not run there.
    #[error("the agent runs on x86_64 and arm64, not on {0}; choose another instance type")]
    NoAgent(String),
    /// The publisher has no such image here.
    #[error(
        "the image {name} is not published for {architecture} in {region}: there is no parameter {parameter}; give the id of an image instead"
    )]
    NotPublished {
        /// What the fleet says.
        name: String,
        /// The processors.
        architecture: String,
        region: String,
        /// Where its id would be.
        parameter: String,
    },
    /// It cannot be seen from here.
    #[error(
        "there is no image {id} in {region}: it was deregistered, belongs to another region, or belongs to \
         another account that does not share it; {choose}",
        choose = choice_hint()
    )]
    Missing { id: String, region: String },
    /// It is there but no use.
    #[error("cannot use the image {id}: {why}; {choose}", choose = choice_hint())]
    Unusable {
        id: String,
        /// What it is, or is not.
        why: String,
    },
    /// AWS did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
}

fn known_names() -> String {
    IMAGE_NAMES.join(", ")
}

fn choice_hint() -> String {
    format!("choose one of {}, or the id of an image in this region", known_names())
}

/// Debian's name for processors that the agent is built for, by EC2's.
fn debian_name(architecture: &str) -> Option<&'static str> {
    match architecture {
        "x86_64" => Some("amd64"),
        "arm64" => Some("arm64"),
        _ => None,
    }
}

/// What a fleet's `image` means.
#[derive(Debug, PartialEq, Eq)]
enum Reference<'a> {
    Id(&'a str),
    Parameter(String),
}

fn parse_reference<'a>(image: &'a str, architecture: &str) -> Result<Reference<'a>, ImageError> {
    if let Some(rest) = image.strip_prefix("ami-")
        && !rest.is_empty()
        && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Ok(Reference::Id(image));
    }
    let Some((_, parameter)) = NAMES.iter().find(|(name, _)| *name == image) else {
        return Err(ImageError::Unknown(image.to_owned()));
    };
    let of = debian_name(architecture).ok_or_else(|| ImageError::NoAgent(architecture.to_owned()))?;
    Ok(Reference::Parameter(parameter.replace("ARCH", of)))
}

/// The image with this id, from EC2's description.
///
/// # Errors
/// The agent could not run from it.
fn usable_image(image: &aws_sdk_ec2::types::Image, id: &str) -> Result<Image, ImageError> {
    let unusable = |why: String| ImageError::Unusable { id: id.to_owned(), why };
    match image.state() {
        None | Some(ImageState::Available) => {}
        Some(state) => return Err(unusable(format!("its state is {}", state.as_str()))),
    }
    if image.platform() == Some(&PlatformValues::Windows) {
        return Err(unusable("it is Windows".to_owned()));
    }
    if image.root_device_type() == Some(&DeviceType::InstanceStore) {
        return Err(unusable("its root volume is not on EBS, so it cannot be encrypted".to_owned()));
    }
    let architecture = image.architecture().map_or("nothing known", |architecture| architecture.as_str());
    if debian_name(architecture).is_none() {
        return Err(unusable(format!("it is for {architecture}; the agent runs on x86_64 and arm64")));
    }
    Ok(Image {
        id: id.to_owned(),
        architecture: architecture.to_owned(),
        root_device: image.root_device_name().map(str::to_owned),
    })
}

impl Cloud {
    /// A fleet's image: one call for an id; two for a name, which stands for one image for each kind
    /// of processor (`architecture`, in EC2's words).
    ///
    /// # Errors
    /// It is unknown, not there, or cannot be launched.
    pub(crate) async fn image(&self, image: &str, architecture: &str) -> Result<Image, ImageError> {
        match parse_reference(image, architecture)? {
            Reference::Id(id) => self.image_by_id(id).await,
            Reference::Parameter(parameter) => {
                let id = self.newest_image(image, architecture, &parameter).await?;
                self.image_by_id(&id).await
            }
        }
    }

    async fn newest_image(
        &self,
        name: &str,
        architecture: &str,
        parameter: &str,
    ) -> Result<String, ImageError> {
        let not_published = || ImageError::NotPublished {
            name: name.to_owned(),
            architecture: architecture.to_owned(),
            region: self.region.clone(),
            parameter: parameter.to_owned(),
        };
        let asked = call(
            format!("find the newest image {name} ({parameter})"),
            self.ssm.get_parameter().name(parameter).send(),
        );
        match asked.await {
            Ok(answer) => answer.parameter.and_then(|parameter| parameter.value).ok_or_else(not_published),
            Err(error) if error.code() == "ParameterNotFound" => Err(not_published()),
            Err(error) => Err(error.into()),
        }
    }

    async fn image_by_id(&self, id: &str) -> Result<Image, ImageError> {
        let missing = || ImageError::Missing { id: id.to_owned(), region: self.region.clone() };
        // Public images are listed for two years, and can be launched for longer.
        let described = call(
            format!("look up the image {id}"),
            self.ec2.describe_images().image_ids(id).include_deprecated(true).send(),
        );
        match described.await {
            Ok(answer) => match answer.images().iter().find(|image| image.image_id() == Some(id)) {
                Some(image) => usable_image(image, id),
                None => Err(missing()),
            },
            Err(error) if error.code().starts_with("InvalidAMIID.") => Err(missing()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::ArchitectureValues;
    use aws_sdk_ec2::types::builders::ImageBuilder;

    use super::*;

    const ID: &str = "ami-08c40ec9ead489470";

    fn ubuntu() -> ImageBuilder {
        aws_sdk_ec2::types::Image::builder()
            .image_id(ID)
            .state(ImageState::Available)
            .architecture(ArchitectureValues::X8664)
            .root_device_type(DeviceType::Ebs)
            .root_device_name("/dev/sda1")
    }

    #[test]
    fn an_id_stays_and_a_name_becomes_its_publishers_parameter() {
        assert_eq!(parse_reference(ID, "arm64").unwrap(), Reference::Id(ID));
        for (name, architecture, parameter) in [
            (
                "ubuntu-22.04",
                "x86_64",
                "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id",
            ),
            (
                "ubuntu-24.04",
                "arm64",
                "/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id",
            ),
            ("debian-12", "arm64", "/aws/service/debian/release/12/latest/arm64"),
            ("debian-13", "x86_64", "/aws/service/debian/release/13/latest/amd64"),
        ] {
            let found = parse_reference(name, architecture).unwrap();
            assert_eq!(found, Reference::Parameter(parameter.to_owned()));
        }
    }

    #[test]
    fn every_name_that_a_fleet_file_may_have_is_found() {
        assert_eq!(NAMES.map(|(name, _)| name), IMAGE_NAMES);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        for name in ["", "ubuntu", "ami-", "ami-xyz", "debian-11"] {
            let error = parse_reference(name, "x86_64").unwrap_err();
            let expected = format!(
                "image {name:?} is neither an id (ami-...) nor a known name (ubuntu-22.04, ubuntu-24.04, debian-12, debian-13)"
            );
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_name_is_of_no_use_for_processors_without_an_agent() {
        assert!(matches!(parse_reference("debian-12", "x86_64_mac"), Err(ImageError::NoAgent(_))));
    }

    #[test]
    fn an_image_is_used_only_if_the_agent_could_run_from_it() {
        let image = usable_image(&ubuntu().build(), ID).unwrap();
        assert_eq!(
            (image.architecture.as_str(), image.root_device.as_deref()),
            ("x86_64", Some("/dev/sda1"))
        );
        for (image, why) in [
            (ubuntu().state(ImageState::Deregistered), "its state is deregistered"),
            (ubuntu().platform(PlatformValues::Windows), "it is Windows"),
            (ubuntu().root_device_type(DeviceType::InstanceStore), "not on EBS"),
            (ubuntu().architecture(ArchitectureValues::I386), "it is for i386"),
        ] {
            let error = usable_image(&image.build(), ID).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("choose one of"), "{error}");
        }
    }
}
