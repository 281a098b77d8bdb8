//! The instances' role and instance profile, which have one name.

use aws_sdk_iam::types::Tag;
use serde_json::{Value, json};

use super::pace::{VISIBLE_WITHIN, retry_while};
use super::{CallError, Cloud, call, none_if_absent, ok_if_absent};
use crate::fleet::tagging::Tags;
use crate::plan::inventory::Role;

/// The name of the role's only policy.
pub(crate) const POLICY: &str = "instance-agent";

impl Cloud {
    /// Looks at the profile and role of this name.
    ///
    /// # Errors
    /// A call failed, or the name is someone else's (`Ok(None)`).
    pub(crate) async fn role(&self, name: &str, fleet: &str) -> Result<Option<Role>, CallError> {
        let mut found = Role::default();
        let profile = self.iam.get_instance_profile().instance_profile_name(name);
        let role = self.iam.get_role().role_name(name);
        let (profile, role) = tokio::join!(
            call(format!("look up the instance profile {name}"), profile.send()),
            call(format!("look up the role {name}"), role.send()),
        );
        if let Some(answer) = none_if_absent(profile)? {
            let profile = answer.instance_profile;
            let tags = profile.as_ref().map(|profile| profile.tags()).unwrap_or_default();
            if !is_ours(tags, fleet) {
                return Ok(None);
            }
            found.profile = true;
            found.in_profile = profile.is_some_and(|p| p.roles.iter().any(|role| role.role_name == name));
        }
        let role = none_if_absent(role)?.and_then(|answer| answer.role);
        if let Some(role) = role {
            if !is_ours(role.tags(), fleet) {
                return Ok(None);
            }
            let asked = self.iam.get_role_policy().role_name(name).policy_name(POLICY);
            found.policy = match call(format!("read the policy of the role {name}"), asked.send()).await {
                Ok(answer) => {
                    let text =
                        percent_encoding::percent_decode_str(&answer.policy_document).decode_utf8_lossy();
                    Some(serde_json::from_str(&text).unwrap_or(Value::Null))
                }
                Err(error) if error.is_not_found() => Some(Value::Null),
                Err(error) => return Err(error),
            };
        }
        Ok(Some(found))
    }

    /// Whether there is an instance profile of this name, whoever's it is.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn has_profile(&self, name: &str) -> Result<bool, CallError> {
        let asked = self.iam.get_instance_profile().instance_profile_name(name);
        let found = call(format!("look up the instance profile {name}"), asked.send()).await;
        Ok(none_if_absent(found)?.is_some())
    }

    /// Creates the role that EC2 may give to instances.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn create_role(&self, name: &str, tags: &Tags, service: &str) -> Result<(), CallError> {
        let trust = json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": { "Service": service },
                "Action": "sts:AssumeRole",
            }],
        });
        let asked = self
            .iam
            .create_role()
            .role_name(name)
            .assume_role_policy_document(trust.to_string())
            .set_tags(Some(iam_tags(tags)));
        match call(format!("create the role {name}"), asked.send()).await {
            // After an answer that was lost. Whose it is was asked before.
            Err(error) if error.is_duplicate() => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// Sets the role's policy.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn put_role_policy(
        &self,
        name: &str,
        policy: &Value,
        waiting: &dyn Fn(&str),
    ) -> Result<(), CallError> {
        retry_while(VISIBLE_WITHIN, waiting, CallError::is_not_visible_yet, async || {
            let asked = self.iam.put_role_policy().role_name(name).policy_name(POLICY);
            let asked = asked.policy_document(policy.to_string()).send();
            call(format!("set the policy of the role {name}"), asked).await.map(|_| ())
        })
        .await
    }

    /// Creates the instance profile.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn create_profile(&self, name: &str, tags: &Tags) -> Result<(), CallError> {
        let asked = self.iam.create_instance_profile().instance_profile_name(name);
        let asked = asked.set_tags(Some(iam_tags(tags))).send();
        match call(format!("create the instance profile {name}"), asked).await {
            Err(error) if error.is_duplicate() => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// Puts the role into the profile.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn add_role(&self, name: &str, waiting: &dyn Fn(&str)) -> Result<(), CallError> {
        retry_while(VISIBLE_WITHIN, waiting, CallError::is_not_visible_yet, async || {
            let asked = self.iam.add_role_to_instance_profile().instance_profile_name(name).role_name(name);
            match call(format!("add the role {name} to its instance profile"), asked.send()).await {
                // A profile holds one role; after a lost answer that is this one.
                Err(error) if error.is_duplicate() || error.code() == "LimitExceeded" => Ok(()),
                result => result.map(|_| ()),
            }
        })
        .await
    }

    /// Deletes profile and role, as far as they are there.
    ///
    /// # Errors
    /// A call failed.
    pub(crate) async fn delete_role(
        &self,
        name: &str,
        found: &Role,
        waiting: &dyn Fn(&str),
    ) -> Result<(), CallError> {
        if found.in_profile {
            self.take_role_out(name).await?;
        }
        // What is in the way a launch may have made since it was looked for.
        if found.profile {
            retry_while(VISIBLE_WITHIN, waiting, is_being_changed, async || {
                let asked = self.iam.delete_instance_profile().instance_profile_name(name).send();
                let deleted = ok_if_absent(call(format!("delete the instance profile {name}"), asked).await);
                if deleted.as_ref().is_err_and(CallError::is_in_use) {
                    self.take_role_out(name).await?;
                }
                deleted
            })
            .await?;
        }
        if let Some(policy) = &found.policy {
            if !policy.is_null() {
                self.delete_role_policy(name).await?;
            }
            retry_while(VISIBLE_WITHIN, waiting, is_being_changed, async || {
                let asked = self.iam.delete_role().role_name(name).send();
                let deleted = ok_if_absent(call(format!("delete the role {name}"), asked).await);
                if deleted.as_ref().is_err_and(CallError::is_in_use) {
                    self.delete_role_policy(name).await?;
                    self.take_role_out(name).await?;
                }
                deleted
            })
            .await?;
        }
        Ok(())
    }

    async fn take_role_out(&self, name: &str) -> Result<(), CallError> {
        let asked = self.iam.remove_role_from_instance_profile().instance_profile_name(name).role_name(name);
        ok_if_absent(call(format!("remove the role {name} from its instance profile"), asked.send()).await)
    }

    async fn delete_role_policy(&self, name: &str) -> Result<(), CallError> {
        let asked = self.iam.delete_role_policy().role_name(name).policy_name(POLICY).send();
        ok_if_absent(call(format!("delete the policy of the role {name}"), asked).await)
    }
}

fn is_being_changed(error: &CallError) -> bool {
    error.is_in_use() || error.code() == "ConcurrentModification"
}

fn is_ours(tags: &[Tag], fleet: &str) -> bool {
    tags.iter().any(|tag| tag.key == instance_contract::tags::FLEET && tag.value == fleet)
}

fn iam_tags(tags: &Tags) -> Vec<Tag> {
    let tag = |(key, value): (&String, &String)| Tag::builder().key(key).value(value).build().ok();
    tags.iter().filter_map(tag).collect()
}
