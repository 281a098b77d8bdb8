//! The private bucket of a fleet, from which instances download the agent's package. The object's name contains its
//! SHA-256.
//!
//! Only a bucket in this account with the fleet's tag is the fleet's. It gets the tag before anything
//! is put into it; one without any tag and without content is what a launch left that was killed in
//! between, and is taken over.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CreateBucketConfiguration, Delete, ObjectIdentifier,
    PublicAccessBlockConfiguration, Tag, Tagging,
};
use instance_contract::tags::FLEET;

use super::pace::{Pace, retry_while};
use super::{CallError, Cloud, call};
use crate::deb::Deb;
use crate::plan::inventory::Bucket;

/// How long an instance may take from the launch to its download.
const PRESIGNED: Duration = Duration::from_secs(3600);
/// How long a new bucket may be invisible, and an emptied one not empty.
const PATIENCE: Duration = Duration::from_secs(120);
/// The region whose name S3 does not take as a place.
const UNNAMED_PLACE: &str = "us-east-1";

/// Why a package cannot be handed over.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PackageError {
    /// The bucket is someone else's.
    #[error(
        "the bucket {bucket} does not belong to this fleet: {why}; left unchanged; choose another --name, or use \
         --package-url or --apt"
    )]
    Foreign {
        bucket: String,
        /// How that is known.
        why: String,
    },
    /// The credentials end too soon.
    #[error("the credentials expire in {0} s, before an instance could download the package; log in again")]
    EndingCredentials(u64),
    /// It could not be emptied.
    #[error("cannot delete {object} of the bucket {bucket}: {why}")]
    Undeletable {
        bucket: String,
        /// What is in it.
        object: String,
        /// S3's words.
        why: String,
    },
    /// It is never empty.
    #[error(
        "the bucket {0} does not become empty: another program keeps writing to it; stop that program and run \
         the command again"
    )]
    NeverEmpty(String),
    /// Something failed before the call.
    #[error("cannot {tried}: {why}")]
    Local {
        /// Completes "cannot …".
        tried: &'static str,
        why: String,
    },
    /// AWS refused.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// An address from which the package can be downloaded for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PresignedUrl {
    /// The address; whoever has it can download the package.
    pub(crate) url: String,
    /// For how long; less than an hour where the credentials end sooner.
    pub(crate) valid_for: Duration,
}

impl PresignedUrl {
    /// What there is to say about it, if it is anything out of the ordinary.
    pub(crate) fn note(&self) -> Option<String> {
        (self.valid_for < PRESIGNED).then(|| {
            format!(
                "the credentials expire in {} min: an instance that starts later cannot download the package",
                self.valid_for.as_secs() / 60
            )
        })
    }
}

fn local_error(tried: &'static str) -> impl Fn(&dyn std::error::Error) -> PackageError {
    move |error| PackageError::Local { tried, why: error.to_string() }
}

/// The name of the package with this SHA-256 in its bucket.
pub(crate) fn object_name(sha256: &str) -> String {
    format!("instance-agent_{sha256}.deb")
}

impl Cloud {
    /// Looks for the bucket of a fleet. One call; one more for a bucket without tags.
    ///
    /// # Errors
    /// It is someone else's.
    pub(crate) async fn find_bucket(
        &self,
        bucket: &str,
        fleet: &str,
        account: &str,
    ) -> Result<Bucket, PackageError> {
        let foreign = |why: String| PackageError::Foreign { bucket: bucket.to_owned(), why };
        let asked = self.s3.get_bucket_tagging().bucket(bucket).expected_bucket_owner(account);
        match call(format!("read the tags of the bucket {bucket}"), asked.send()).await {
            Ok(answer) => match answer.tag_set().iter().find(|tag| tag.key() == FLEET).map(Tag::value) {
                Some(value) if value == fleet => Ok(Bucket::Ours),
                Some(other) => Err(foreign(format!("its tag {FLEET} is {other}"))),
                None => Err(foreign(format!("it has tags, but not {FLEET}"))),
            },
            Err(error) if error.code() == "NoSuchBucket" => Ok(Bucket::Absent),
            Err(error) if error.code() == "NoSuchTagSet" => match self.versions(bucket, account).await?.0[..]
            {
                [] => Ok(Bucket::Untagged),
                _ => Err(foreign(format!("it has no tag {FLEET} and is not empty"))),
            },
            Err(error) if error.is_denied() => Err(foreign(format!(
                "S3 does not let these credentials read its tags ({}): another account owns it, or \
                 s3:GetBucketTagging is missing",
                error.message()
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the bucket of a fleet, private, with these tags: three calls, two after one another.
    ///
    /// # Errors
    /// The name is taken in another account, or AWS refused.
    pub(crate) async fn create_bucket(
        &self,
        bucket: &str,
        account: &str,
        tags: &BTreeMap<String, String>,
        waiting: &dyn Fn(&str),
    ) -> Result<(), PackageError> {
        let place = (self.region != UNNAMED_PLACE).then(|| {
            let place = BucketLocationConstraint::from(self.region.as_str());
            CreateBucketConfiguration::builder().location_constraint(place).build()
        });
        let created = retry_while(PATIENCE, waiting, CallError::is_not_visible_yet, async || {
            let asked = self.s3.create_bucket().bucket(bucket).set_create_bucket_configuration(place.clone());
            call(format!("create the bucket {bucket}"), asked.send()).await
        });
        match created.await {
            Ok(_) => {}
            // By an earlier launch, or by a call whose answer was lost.
            Err(error) if error.code() == "BucketAlreadyOwnedByYou" => {}
            Err(error) if error.code() == "BucketAlreadyExists" => {
                let why = "the name is taken in another account".to_owned();
                return Err(PackageError::Foreign { bucket: bucket.to_owned(), why });
            }
            Err(error) => return Err(error.into()),
        }
        let tags = tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
        let tags = tags.collect::<Result<_, _>>().map_err(|error| local_error("tag the bucket")(&error))?;
        let tagging = Tagging::builder().set_tag_set(Some(tags)).build();
        let tagging = tagging.map_err(|error| local_error("tag the bucket")(&error))?;
        let tag = retry_while(PATIENCE, waiting, CallError::is_not_visible_yet, async || {
            let asked = self.s3.put_bucket_tagging().bucket(bucket).expected_bucket_owner(account);
            call(format!("tag the bucket {bucket}"), asked.tagging(tagging.clone()).send()).await
        });
        tokio::try_join!(
            async { tag.await.map_err(PackageError::from) },
            self.block_public_access(bucket, account, waiting)
        )?;
        Ok(())
    }

    /// Blocks public access. AWS does so by itself in new buckets; it is said again, as this is about a
    /// program that instances run as root.
    async fn block_public_access(
        &self,
        bucket: &str,
        account: &str,
        waiting: &dyn Fn(&str),
    ) -> Result<(), PackageError> {
        let block = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .block_public_policy(true)
            .ignore_public_acls(true)
            .restrict_public_buckets(true)
            .build();
        retry_while(PATIENCE, waiting, CallError::is_not_visible_yet, async || {
            let asked = self.s3.put_public_access_block().bucket(bucket).expected_bucket_owner(account);
            let asked = asked.public_access_block_configuration(block.clone());
            call(format!("block public access to the bucket {bucket}"), asked.send()).await
        })
        .await?;
        Ok(())
    }

    /// Puts the package into the fleet's bucket: one call into a bucket that was just made (`fresh`);
    /// else two at once, and the upload only if it is not there.
    ///
    /// # Errors
    /// AWS refused.
    pub(crate) async fn upload(
        &self,
        bucket: &str,
        account: &str,
        deb: &Deb,
        fresh: bool,
        waiting: &dyn Fn(&str),
    ) -> Result<(), PackageError> {
        let key = object_name(&deb.sha256);
        if !fresh {
            let asked = self.s3.head_object().bucket(bucket).key(&key).expected_bucket_owner(account);
            // Whatever hinders this hinders the upload too, whose answer says why.
            let found = call(format!("look for {key}"), asked.send());
            // Blocked again, as the launch that made the bucket may have been killed before it was.
            let (found, blocked) = tokio::join!(found, self.block_public_access(bucket, account, waiting));
            blocked?;
            let length = found.ok().and_then(|found| found.content_length);
            if length == i64::try_from(deb.bytes.len()).ok() {
                return Ok(());
            }
        }
        retry_while(PATIENCE, waiting, CallError::is_not_visible_yet, async || {
            let body = ByteStream::from(deb.bytes.clone());
            let asked = self.s3.put_object().bucket(bucket).key(&key).expected_bucket_owner(account);
            let asked = asked.content_type("application/vnd.debian.binary-package").body(body);
            call(format!("upload the package to the bucket {bucket}"), asked.send()).await
        })
        .await?;
        Ok(())
    }

    /// An address for one download of the package, for an hour or as long as the credentials live.
    /// No call.
    ///
    /// # Errors
    /// There are no credentials, or they end before an instance could boot.
    pub(crate) async fn presign(&self, bucket: &str, sha256: &str) -> Result<PresignedUrl, PackageError> {
        let tried = "sign the package's address";
        let mut valid_for = PRESIGNED;
        if let Some(provider) = &self.credentials {
            let credentials = provider.provide_credentials().await;
            let credentials = credentials.map_err(|error| local_error(tried)(&error))?;
            if let Some(end) = credentials.expiry() {
                valid_for = valid_for.min(end.duration_since(SystemTime::now()).unwrap_or_default());
            }
        }
        if valid_for < Duration::from_secs(120) {
            return Err(PackageError::EndingCredentials(valid_for.as_secs()));
        }
        let config = PresigningConfig::expires_in(valid_for).map_err(|error| local_error(tried)(&error))?;
        let asked = self.s3.get_object().bucket(bucket).key(object_name(sha256));
        let request = call(tried, asked.presigned(config)).await?;
        Ok(PresignedUrl { url: request.uri().to_owned(), valid_for })
    }

    /// Empties a fleet's bucket, of all versions and of uploads that were never completed, and deletes
    /// it. For a bucket that [`Self::find_bucket`] found.
    ///
    /// # Errors
    /// AWS refused, or it does not get empty.
    pub(crate) async fn delete_bucket(
        &self,
        bucket: &str,
        account: &str,
        waiting: &dyn Fn(&str),
    ) -> Result<(), PackageError> {
        let mut pace = Pace::new(PATIENCE);
        loop {
            match self.empty_bucket(bucket, account).await {
                Err(PackageError::Call(error)) if error.code() == "NoSuchBucket" => return Ok(()),
                emptied => emptied?,
            }
            let asked = self.s3.delete_bucket().bucket(bucket).expected_bucket_owner(account);
            match call(format!("delete the bucket {bucket}"), asked.send()).await {
                Ok(_) => return Ok(()),
                Err(error) if error.code() == "NoSuchBucket" => return Ok(()),
                Err(error) if error.is_in_use() || error.is_not_visible_yet() => {
                    waiting(&format!("{}: {}", error.code(), error.message()));
                }
                Err(error) => return Err(error.into()),
            }
            self.abort_uploads(bucket, account).await?;
            if !pace.next().await {
                return Err(PackageError::NeverEmpty(bucket.to_owned()));
            }
        }
    }

    /// The first page of what is in a bucket, versions that were deleted included, and whether there is
    /// more.
    async fn versions(
        &self,
        bucket: &str,
        account: &str,
    ) -> Result<(Vec<ObjectIdentifier>, bool), PackageError> {
        let asked = self.s3.list_object_versions().bucket(bucket).expected_bucket_owner(account);
        let page = call(format!("list the bucket {bucket}"), asked.send()).await?;
        let objects = page.versions().iter().map(|version| (version.key(), version.version_id()));
        let markers = page.delete_markers().iter().map(|marker| (marker.key(), marker.version_id()));
        let identified = objects.chain(markers).map(|(key, version)| {
            let identifier = ObjectIdentifier::builder().set_key(key.map(str::to_owned));
            identifier.set_version_id(version.map(str::to_owned)).build()
        });
        let identified: Result<_, _> = identified.collect();
        let identified = identified.map_err(|error| local_error("empty the bucket")(&error))?;
        Ok((identified, page.is_truncated() == Some(true)))
    }

    async fn empty_bucket(&self, bucket: &str, account: &str) -> Result<(), PackageError> {
        loop {
            // What was on this page is gone in the next.
            let (versions, more) = self.versions(bucket, account).await?;
            if versions.is_empty() {
                return Ok(());
            }
            let delete = Delete::builder().set_objects(Some(versions)).quiet(true).build();
            let delete = delete.map_err(|error| local_error("empty the bucket")(&error))?;
            let asked = self.s3.delete_objects().bucket(bucket).expected_bucket_owner(account).delete(delete);
            let answer = call(format!("empty the bucket {bucket}"), asked.send()).await?;
            if let Some(error) = answer.errors().first() {
                return Err(PackageError::Undeletable {
                    bucket: bucket.to_owned(),
                    object: error.key().unwrap_or_default().to_owned(),
                    why: format!(
                        "{}: {}",
                        error.code().unwrap_or_default(),
                        error.message().unwrap_or_default()
                    ),
                });
            }
            if !more {
                return Ok(());
            }
        }
    }

    async fn abort_uploads(&self, bucket: &str, account: &str) -> Result<(), PackageError> {
        let tried = format!("list the unfinished uploads to the bucket {bucket}");
        let asked = self.s3.list_multipart_uploads().bucket(bucket).expected_bucket_owner(account);
        let page = match call(tried, asked.send()).await {
            Err(error) if error.code() == "NoSuchBucket" => return Ok(()),
            page => page?,
        };
        for upload in page.uploads() {
            let (key, id) = (upload.key().unwrap_or_default(), upload.upload_id().unwrap_or_default());
            let asked = self.s3.abort_multipart_upload().bucket(bucket).expected_bucket_owner(account);
            match call(format!("abort the upload of {key}"), asked.key(key).upload_id(id).send()).await {
                Err(error) if !matches!(error.code(), "NoSuchUpload" | "NoSuchBucket") => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_lives_for_less_than_an_hour_says_so() {
        let presigned = |valid_for| PresignedUrl { url: String::new(), valid_for };
        assert_eq!(presigned(PRESIGNED).note(), None);
        let note = presigned(Duration::from_secs(600)).note().unwrap();
        assert!(note.contains("expire in 10 min"), "{note}");
    }
}
