//! Machine images by id or name.

use super::{CallError, Cloud, call};

/// A machine image.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) id: String,
    /// In EC2's words.
    pub(crate) architecture: String,
    pub(crate) root_device: Option<String>,
}

impl Cloud {
    pub(crate) async fn image(&self, image: &str, _architecture: &str) -> Result<Image, CallError> {
        let asked = self.ec2.describe_images().image_ids(image);
        let found = call(format!("look for the image {image}"), asked.send()).await?;
        let found = found.images.unwrap_or_default().into_iter().next();
        let found = found.unwrap_or_else(|| aws_sdk_ec2::types::Image::builder().build());
        Ok(Image {
            id: found.image_id.unwrap_or_default(),
            architecture: found.architecture.map(|a| a.as_str().to_owned()).unwrap_or_default(),
            root_device: found.root_device_name,
        })
    }
}
