//! Machine images: from the name in a fleet file to one that can be launched.

use std::fmt;

use aws_sdk_ec2::types::{DeviceType, ImageState, PlatformValues};

use super::{CallError, Cloud, call};

/// The names that are known: what a fleet file says, and the public parameter in which the image's
/// publisher keeps the newest one's id, with `ARCH` in place of the processor.
const NAMES: [(&str, &str); 4] = [
    ("ubuntu-22.04", "/aws/service/canonical/ubuntu/server/22.04/stable/current/ARCH/hvm/ebs-gp2/ami-id"),
    ("ubuntu-24.04", "/aws/service/canonical/ubuntu/server/24.04/stable/current/ARCH/hvm/ebs-gp3/ami-id"),
    ("debian-12", "/aws/service/debian/release/12/latest/ARCH"),
    ("debian-13", "/aws/service/debian/release/13/latest/ARCH"),
];

/// A kind of processor that the agent is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

impl Architecture {
    /// By the name that EC2 has for it, for instance types and for images.
    pub(crate) fn from_ec2(name: &str) -> Option<Self> {
        match name {
            "x86_64" => Some(Self::Amd64),
            "arm64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// By the name that Debian has for it.
    pub(crate) fn from_debian(name: &str) -> Option<Self> {
        match name {
            "amd64" => Some(Self::Amd64),
            "arm64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// Debian's name for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An image that instances can be launched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// Its id.
    pub(crate) id: String,
    /// Its publisher's name for it; empty where it has none.
    pub(crate) name: String,
    /// The processors it runs on.
    pub(crate) architecture: Architecture,
    /// The device that its root volume has to be described under.
    pub(crate) root_device_name: String,
}

/// Why there is no such image.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// Neither an id nor a known name.
    #[error("image {0:?} is neither an id (ami-...) nor one of the known names: {known}", known = known_names())]
    Unknown(String),
    /// The publisher has no such image here.
    #[error(
        "the image {name} is not published for {architecture} in {region}: there is no parameter {parameter}; give the id of an image instead"
    )]
    NotPublished {
        /// What the fleet says.
        name: String,
        /// The processors.
        architecture: Architecture,
        /// The region.
        region: String,
        /// Where its id would be.
        parameter: String,
    },
    /// It cannot be seen from here.
    #[error(
        "there is no image {id} in {region}: it was deregistered, or is of another region, or is another account's and not shared; {choose}",
        choose = choose()
    )]
    Missing {
        /// Its id.
        id: String,
        /// The region.
        region: String,
    },
    /// It is there but no use.
    #[error("the image {id} cannot be used: {why}; {choose}", choose = choose())]
    Unusable {
        /// Its id.
        id: String,
        /// What it is, or is not.
        why: String,
    },
    /// It is for other processors than the instances have.
    #[error(
        "the image {id} is for {image}, but {instance_type} is {wanted}; choose an image for {wanted}, or another type"
    )]
    OtherArchitecture {
        /// Its id.
        id: String,
        /// The image's.
        image: Architecture,
        /// The type that does not fit.
        instance_type: String,
        /// That type's.
        wanted: Architecture,
    },
    /// AWS did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
}

fn known_names() -> String {
    NAMES.map(|(name, _)| name).join(", ")
}

fn choose() -> String {
    format!("choose one of {}, or the id of an image in this region", known_names())
}

/// What a fleet's `image` means.
#[derive(Debug, PartialEq, Eq)]
enum Reference<'a> {
    Id(&'a str),
    Parameter(String),
}

fn reference(image: &str, architecture: Architecture) -> Result<Reference<'_>, ImageError> {
    if let Some(rest) = image.strip_prefix("ami-")
        && !rest.is_empty()
        && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Ok(Reference::Id(image));
    }
    match NAMES.iter().find(|(name, _)| *name == image) {
        Some((_, parameter)) => Ok(Reference::Parameter(parameter.replace("ARCH", architecture.as_str()))),
        None => Err(ImageError::Unknown(image.to_owned())),
    }
}

impl Image {
    /// # Errors
    /// Instances of this type could not run it.
    pub(crate) fn fits(&self, instance_type: &str, wanted: Architecture) -> Result<(), ImageError> {
        if self.architecture == wanted {
            return Ok(());
        }
        Err(ImageError::OtherArchitecture {
            id: self.id.clone(),
            image: self.architecture,
            instance_type: instance_type.to_owned(),
            wanted,
        })
    }

    fn from_ec2(image: &aws_sdk_ec2::types::Image, id: &str) -> Result<Self, ImageError> {
        let unusable = |why: String| ImageError::Unusable { id: id.to_owned(), why };
        match image.state() {
            None | Some(ImageState::Available) => {}
            Some(state) => return Err(unusable(format!("its state is {}", state.as_str()))),
        }
        if image.platform() == Some(&PlatformValues::Windows) {
            return Err(unusable("it is Windows".to_owned()));
        }
        if image.root_device_type().is_some_and(|kind| *kind != DeviceType::Ebs) {
            return Err(unusable("its root volume is not on EBS, so it cannot be encrypted".to_owned()));
        }
        let name = image.architecture().map_or("nothing known", |architecture| architecture.as_str());
        let architecture = Architecture::from_ec2(name)
            .ok_or_else(|| unusable(format!("it is for {name}, the agent for x86_64 and arm64")))?;
        let root_device_name = image.root_device_name().unwrap_or_default();
        if root_device_name.is_empty() {
            return Err(unusable("it has no root device".to_owned()));
        }
        Ok(Self {
            id: id.to_owned(),
            name: image.name().unwrap_or_default().to_owned(),
            architecture,
            root_device_name: root_device_name.to_owned(),
        })
    }
}

impl Cloud {
    /// The id of a fleet's image: no call for an id, one for a name.
    ///
    /// # Errors
    /// It is unknown, or not published here.
    pub(crate) async fn image_id(
        &self,
        image: &str,
        architecture: Architecture,
    ) -> Result<String, ImageError> {
        let parameter = match reference(image, architecture)? {
            Reference::Id(id) => return Ok(id.to_owned()),
            Reference::Parameter(parameter) => parameter,
        };
        let asked = call(
            format!("find the newest image {image} ({parameter})"),
            self.ssm.get_parameter().name(&parameter).send(),
        );
        match asked.await {
            Ok(answer) => {
                let value = answer.parameter.and_then(|parameter| parameter.value);
                value.ok_or_else(|| self.not_published(image, architecture, parameter))
            }
            Err(error) if error.code() == "ParameterNotFound" => {
                Err(self.not_published(image, architecture, parameter))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn not_published(&self, name: &str, architecture: Architecture, parameter: String) -> ImageError {
        ImageError::NotPublished {
            name: name.to_owned(),
            architecture,
            region: self.region.clone(),
            parameter,
        }
    }

    /// The image with this id: one call.
    ///
    /// # Errors
    /// It is not there, or cannot be launched.
    pub(crate) async fn image(&self, id: &str) -> Result<Image, ImageError> {
        let missing = || ImageError::Missing { id: id.to_owned(), region: self.region.clone() };
        // Public images are listed for two years, and can be launched for longer.
        let described = call(
            format!("look at the image {id}"),
            self.ec2.describe_images().image_ids(id).include_deprecated(true).send(),
        );
        match described.await {
            Ok(answer) => match answer.images().iter().find(|image| image.image_id() == Some(id)) {
                Some(image) => Image::from_ec2(image, id),
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
        assert_eq!(reference(ID, Architecture::Arm64).unwrap(), Reference::Id(ID));
        for (name, architecture, parameter) in [
            (
                "ubuntu-22.04",
                Architecture::Amd64,
                "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id",
            ),
            (
                "ubuntu-24.04",
                Architecture::Arm64,
                "/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id",
            ),
            ("debian-12", Architecture::Arm64, "/aws/service/debian/release/12/latest/arm64"),
            ("debian-13", Architecture::Amd64, "/aws/service/debian/release/13/latest/amd64"),
        ] {
            let found = reference(name, architecture).unwrap();
            assert_eq!(found, Reference::Parameter(parameter.to_owned()));
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        for name in ["", "ubuntu", "ami-", "ami-xyz", "debian-11"] {
            let error = reference(name, Architecture::Amd64).unwrap_err();
            let expected = format!(
                "image {name:?} is neither an id (ami-...) nor one of the known names: \
                 ubuntu-22.04, ubuntu-24.04, debian-12, debian-13"
            );
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn an_image_is_used_only_if_the_agent_could_run_from_it() {
        let image = Image::from_ec2(&ubuntu().build(), ID).unwrap();
        assert_eq!((image.architecture, image.root_device_name.as_str()), (Architecture::Amd64, "/dev/sda1"));
        for (image, why) in [
            (ubuntu().state(ImageState::Deregistered), "its state is deregistered"),
            (ubuntu().platform(PlatformValues::Windows), "it is Windows"),
            (ubuntu().root_device_type(DeviceType::InstanceStore), "not on EBS"),
            (ubuntu().architecture(ArchitectureValues::I386), "it is for i386"),
            (ubuntu().set_root_device_name(None), "no root device"),
        ] {
            let error = Image::from_ec2(&image.build(), ID).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("choose one of"), "{error}");
        }
    }

    #[test]
    fn an_image_for_other_processors_is_refused_with_both_named() {
        let image = Image::from_ec2(&ubuntu().build(), ID).unwrap();
        image.fits("t3.micro", Architecture::Amd64).unwrap();
        let error = image.fits("t4g.micro", Architecture::Arm64).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "the image {ID} is for amd64, but t4g.micro is arm64; choose an image for arm64, or another type"
            )
        );
    }
}
